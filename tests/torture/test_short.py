"""The short form of the suite: a few faults of each kind in each command, the same in each run."""

from collections.abc import Iterator

import pytest

from tests.torture.bench import Bench
from tests.torture.commands import COMMANDS
from tests.torture.faults.library import FAULTS, Mode, compiler
from tests.torture.flips import FlipPart, flip_parts
from tests.torture.parts import KINDS, FaultPart
from tests.torture.power_cut import Model
from tests.torture.run import torture
from tests.torture.twice import TwicePart

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler"),
]

SHORT = [command for command in COMMANDS if command.short]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with Bench(tmp_path_factory.mktemp("torture")) as made:
        yield made


@pytest.mark.parametrize("command", SHORT, ids=lambda command: command.name)
def test_a_command_that_is_broken_goes_on(command, bench: Bench) -> None:
    """One place for each kind of fault, and more power cuts, which take less time."""
    kinds: tuple[Mode | Model, ...] = (*FAULTS, "ordered", "any")
    report = torture(bench, [FaultPart(command, kind) for kind in kinds], seconds=1000, rounds=1)
    report.merge(torture(bench, [FaultPart(command, kind) for kind in KINDS[-2:]], seconds=1000, seed=1, rounds=1))
    assert not report.lost, report.table()


@pytest.mark.parametrize("command", SHORT, ids=lambda command: command.name)
def test_two_at_once(command, bench: Bench) -> None:
    report = torture(bench, [TwicePart(command)], seconds=1000, rounds=1)
    assert not report.lost, report.table()


def test_damaged_files_are_named(bench: Bench) -> None:
    parts = [part for part in flip_parts() if isinstance(part, FlipPart)]
    report = torture(bench, parts, seconds=1000, rounds=2)
    assert not report.lost, report.table()

"""The suite notices what it should: writers that are wrong in one way are lost by the fault that shows it."""

import random
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.torture.bench import Bench
from tests.torture.commands import Command
from tests.torture.faults.library import Fault, Mode, build, compiler
from tests.torture.faults.trace import Kind, Operation
from tests.torture.parts import KINDS, FaultPart
from tests.torture.power_cut import Disk, Model, read_state
from tests.torture.run import named, torture
from tests.torture.warm import Warm

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs Linux and a C compiler")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    scratch = tmp_path_factory.mktemp("torture")
    with Bench(scratch, "tests.torture.writers:main", preload=()) as made:
        yield made


def writer(name: str) -> Command:
    return Command(name, lambda inputs: name)


def lost(bench: Bench, name: str, kind: Mode | Model, seeds: int = 1) -> list[str]:
    """The problems of all cases of a writer."""
    part = FaultPart(writer(name), kind)
    total = part.total(bench)
    numbers = range(1, total + 1, total // 10 if kind is Mode.BUDGET else 1)
    cases = [(seed, number) for seed in range(seeds) for number in numbers]
    return [problem for seed, number in cases for problem in part.problems(bench, seed, number)]


CUTS: tuple[Model, ...] = ("ordered", "any")


@pytest.mark.parametrize("kind", KINDS)
def test_a_careful_writer_loses_nothing(bench: Bench, kind: Mode | Model) -> None:
    assert lost(bench, "careful", kind, seeds=2) == []


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("in_place", Mode.KILL, "out differs"),
        ("in_place", Mode.TORN, "out differs"),
        ("in_place", Mode.FULL_ONCE, "out differs"),
        ("untidy", Mode.KILL, "left over: .out."),
        ("deaf", Mode.IO_ERROR, "out is missing"),
        ("mute", Mode.IO_ERROR, "names no path"),
    ],
)
def test_a_wrong_writer_is_noticed(bench: Bench, name: str, kind: Mode, message: str) -> None:
    assert any(message in problem for problem in lost(bench, name, kind))


@pytest.mark.parametrize("name", ["in_place", "unflushed"])
@pytest.mark.parametrize("model", CUTS)
def test_a_power_cut_shows_what_was_not_flushed(bench: Bench, name: str, model: Model) -> None:
    assert any("out differs" in problem for problem in lost(bench, name, model, seeds=4))


def test_a_file_that_was_renamed_and_not_flushed_may_be_empty(bench: Bench) -> None:
    trace = bench.reference(writer("unflushed")).trace
    disk = Disk(str(bench.work), {}).do(trace)
    found = {disk.after_cut("ordered", random.Random(seed)).get("out") for seed in range(50)}
    assert b"" in found and disk.whole()["out"] in found and None not in found


def test_a_name_is_safe_after_a_flush_of_its_folder_alone(bench: Bench) -> None:
    def states(name: str, model: Model) -> set[bool]:
        trace = bench.reference(writer(name)).trace
        disk = Disk(str(bench.work), {}).do(trace)
        return {"out" in disk.after_cut(model, random.Random(seed)) for seed in range(50)}

    assert states("careful", "any") == {True} == states("careful", "ordered")
    assert states("unflushed_name", "any") == {True, False} == states("unflushed_name", "ordered")


def test_a_flush_of_a_later_file_keeps_earlier_names_only_on_an_ordered_disk(tmp_path: Path, bench: Bench) -> None:
    trace = bench.reference(writer("careful")).trace
    # Without the flush of the folder, but with the file's, which comes after the file was made.
    part = [one for one in trace if one.number <= 6]
    assert [one.kind.name for one in part] == ["CREATE", "WRITE", "WRITE", "WRITE", "FSYNC", "CLOSE"]
    disk = Disk(str(bench.work), {}).do(part)
    ordered = [disk.after_cut("ordered", random.Random(seed)) for seed in range(30)]
    free = [disk.after_cut("any", random.Random(seed)) for seed in range(30)]
    assert all(state == {".out.partial": part_content(part)} for state in ordered)
    assert {bool(state) for state in free} == {True, False}


def part_content(operations: list) -> bytes:
    return b"".join(one.data for one in operations)


def test_a_command_that_hangs_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    command = writer("sleepy")
    bench.reference(command)
    monkeypatch.setattr(bench, "guard", 1.0)
    assert any("did not end" in problem for problem in FaultPart(command, Mode.FULL).problems(bench, 0, 2))


def test_a_command_ends_with_its_server(bench: Bench, tmp_path: Path) -> None:
    with Warm(build(bench.scratch), tmp_path, "tests.torture.writers:main", preload=()) as other:
        run = other.start(["endless"], tmp_path)
        assert run.wait(0.2) is None
        process = psutil.Process(run.pid)
    assert not psutil.wait_procs([process], timeout=20)[1]


def test_all_operations_are_recorded(bench: Bench) -> None:
    outcome, trace, state = bench.traced(writer("many_calls"), {})
    assert outcome.code == 0, outcome.stderr
    seen = Disk(str(bench.work), {}).do(trace).whole()
    assert {name: seen.get(name) for name in state} == state and seen.keys() == state.keys()
    assert {"out/inner/renamed", "out/copied", "out/linked", "out/symbolic"} <= state.keys()
    # Replayed up to each operation it is what a killed command leaves.
    for number in range(1, outcome.operations + 1, 5):
        _, _, killed = bench.traced(writer("many_calls"), {}, Fault(Mode.KILL, number))
        before = Disk(str(bench.work), {}).do(one for one in trace if one.number < number)
        assert before.whole() == killed


def test_a_rename_that_was_not_seen_is_found_by_the_inode() -> None:
    """Some libraries write a file of another name and rename it without libc, also over a file that is there."""

    def one(kind: Kind, number: int, inode: int, name: str, data: bytes = b"") -> Operation:
        return Operation(kind, number, inode, 1, 0, False, f"/work/{name}", "", data)

    operations = [
        one(Kind.CREATE, 1, 7, "out"),
        one(Kind.CREATE, 2, 8, ".tmp"),
        one(Kind.WRITE, 3, 8, ".tmp", b"content"),
        one(Kind.FSYNC, 4, 8, "out"),
    ]
    assert Disk("/work", {}).do(operations).whole() == {"out": b"content"}
    assert Disk("/work", {}).do(operations[1:]).whole() == {"out": b"content"}


def test_numbers_and_faults_are_exact(bench: Bench) -> None:
    command = writer("careful")
    size = sum(map(len, bench.reference(command).result.values()))
    assert bench.reference(command).operations == 8
    assert bench.reference(command).bytes == size
    for number in range(1, 10):
        outcome, trace, _ = bench.traced(command, {}, Fault(Mode.KILL, number))
        assert outcome.code == (-9 if number <= 8 else 0) and outcome.fired == (number <= 8)
        assert [one.number for one in trace] == list(range(1, min(number, 9)))
    _, _, state = bench.traced(command, {}, Fault(Mode.TORN, 2))
    assert [len(content) for content in state.values() if content] == [size // 6]
    outcome, trace, _ = bench.traced(command, {}, Fault(Mode.BUDGET, size // 2))
    assert sum(len(one.data) for one in trace) == size // 2 and "No space left" in outcome.stderr


def test_the_loop_tries_every_number_before_the_next_seed(bench: Bench) -> None:
    part = FaultPart(writer("untidy"), Mode.KILL)
    report = torture(bench, [part], seconds=1000, seed=3, rounds=8)
    assert report.tried == {"untidy/kill": 8} and 0 < report.lost_of.total() < 8
    assert all(case.startswith("untidy/kill:3:") for case in report.lost)
    assert len(report.table().splitlines()) == 3 + report.lost_of.total()
    first = next(iter(report.lost))
    assert any("left over" in problem for problem in part.problems(bench, *map(int, first.split(":")[1:])))
    assert torture(bench, [part], seconds=0).tried == {}


def test_parts_are_found_by_the_beginning_of_their_names() -> None:
    parts = [FaultPart(writer(name), Mode.KILL) for name in ("train", "trainer")]
    assert [part.name for part in named(parts, ["train"])] == ["train/kill"]
    assert [part.name for part in named(parts, ["trainer/kill"])] == ["trainer/kill"]
    assert named(parts, []) == parts


def test_without_a_fault_nothing_changes(bench: Bench) -> None:
    """The same files with the library and without."""
    bench.traced(writer("many_calls"), {})
    with_library = read_state(bench.work)
    run = bench.warm.start(["many_calls"], bench.scratch / "given")
    assert run.wait() == 0
    assert read_state(bench.scratch / "given") == with_library

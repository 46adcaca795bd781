"""Ctrl-C and SIGTERM: one line, the exit codes 130 and 75, nothing unfinished, and the rerun goes on."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from prior_fast.cli.main import main
from prior_fast.cli.prepare.stopping import until_stopped
from prior_fast.errors import Interrupted, RunError
from prior_fast.phantom import generate
from prior_fast.prepare.labelled import chunks as labelled_chunks
from prior_fast.prepare.labelled import pipeline as labelled_pipeline
from prior_fast.prepare.studies import chunks as study_chunks
from prior_fast.prepare.studies import pipeline as study_pipeline
from tests.prepare.labelled.trees import write_csv
from tests.prepare.studies.tables import save_xray, text


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for module, chunks in ((study_pipeline, study_chunks), (labelled_pipeline, labelled_chunks)):
        monkeypatch.setattr(
            module, "make_tasks", lambda *given, make=chunks.make_tasks, **more: make(*given, **more, size=4)
        )
    images = tmp_path / "source"
    for number in range(12):
        save_xray(images / f"x{number}.png", number)
    header = ("image", "report", "subject", "Edema")
    write_csv(images / "t.csv", header, [(f"x{n}.png", text(n), f"p{n}", n % 2) for n in range(12)])
    return ["--table", str(images / "t.csv"), "--images", str(images), "--workers", "1", "--out", str(tmp_path / "out")]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Makes Ctrl-C raise, as in a terminal: tests in the background of a shell inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)  # ended by the signal


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize(
    ("layout", "module", "name"), [("table", study_chunks, "_prepare"), ("labels", labelled_chunks, "_decode")]
)
def test_prepare(words, tmp_path, monkeypatch, capsys, number, code, layout, module, name):
    real, seen = getattr(module, name), []

    def at_the_sixth(*given):
        seen.append(given)
        return send(number) if len(seen) == (2 if layout == "table" else 6) else real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, at_the_sixth)
        assert main(["prepare", layout, *words]) == code
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1] == "prior-fast: stopped; start the same command again to go on from there"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out.partial"}
    assert [path.suffix for path in (tmp_path / "out.partial").iterdir()] == [".bin"]
    assert main(["prepare", layout, *words]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_phantom(tmp_path, monkeypatch, capsys, number, code):
    monkeypatch.setattr(generate, "write_tables", lambda *_: send(number))
    assert main(["phantom", "--out", str(tmp_path / "out"), "--studies", "2", "--size", "64", "--workers", "1"]) == code
    assert capsys.readouterr().err.splitlines()[-1] == "prior-fast: stopped; nothing was written"
    assert not list(tmp_path.iterdir())


def test_only_sigterm_has_the_exit_code_of_a_stop() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert until_stopped(lambda: None) == 0

    def dying_workers() -> None:
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RunError("a worker process died") from None

    assert until_stopped(dying_workers) == 75
    for error in (Interrupted("x"), RunError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            until_stopped(lambda error=error: (_ for _ in ()).throw(error))
    assert signal.getsignal(signal.SIGTERM) == before

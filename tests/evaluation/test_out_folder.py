"""--out: of one kind, of one process, never an input, and never a mixture of two evaluations."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prior_fast.cli.main import main
from prior_fast.errors import RunError, UsageError
from prior_fast.evaluation.evaluate import write_csv
from prior_fast.evaluation.id_lists import read_ids
from prior_fast.evaluation.out_folder import hold_out, replace_results
from prior_fast.files.claim import KIND_FILE

NAMES = ("zero-shot", "retrieval")


@pytest.fixture
def evaluate(store: Path, checkpoint: Path) -> Callable[..., int]:
    def run(task: str, out: Path | str, *words: str) -> int:
        paths = ["--checkpoint", str(checkpoint), "--data", str(store), "--out", str(out)]
        return main(["evaluate", task, *paths, "device=cpu", "per_class=2", *words])

    return run


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_later_evaluation_leaves_no_file_of_an_earlier_one(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = {}
    for task in NAMES:
        assert evaluate(task, tmp_path / task) == 0
        written[task] = names(tmp_path / task)
    out = tmp_path / "zero-shot"
    (out / "notes.txt").write_text("mine")
    assert "replaced" not in capsys.readouterr().out
    assert evaluate("retrieval", out) == 0
    assert "the results of an earlier evaluation in" in capsys.readouterr().out
    assert names(out) == {*written["retrieval"], "notes.txt"} and "roc.png" not in names(out)
    assert evaluate("zero-shot", out, "pictures=false") == 0
    assert names(out) == {KIND_FILE, "notes.txt", "metrics.json", "predictions.csv", "selection.csv"}


def test_a_failure_keeps_the_earlier_results(tmp_path: Path) -> None:
    with replace_results(tmp_path) as folder:
        (folder / "metrics.json").write_text("1")
        (folder / "roc.png").write_text("1")
    with pytest.raises(RuntimeError), replace_results(tmp_path) as folder:
        (folder / "metrics.json").write_text("2")
        raise RuntimeError
    assert names(tmp_path) == {"metrics.json", "roc.png"} and (tmp_path / "metrics.json").read_text() == "1"
    with pytest.raises(AssertionError), replace_results(tmp_path) as folder:
        (folder / "metrics.json").touch()
        (folder / "another.png").touch()
    assert names(tmp_path) == {"metrics.json", "roc.png"}


def test_inputs_and_folders_of_another_kind_are_refused(
    store: Path, checkpoint: Path, evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.json").write_text("of the run")
    file = tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(store)
    before = names(store), names(checkpoint)
    for out in (store, store / "new", checkpoint, checkpoint / "new" / "er", checkpoint.parent, run, file, link):
        for task in NAMES:
            assert evaluate(task, out) == 2, out
            error = capsys.readouterr().err
            assert f"--out {out}" in error and error.count("\n") == 1, out
    assert (names(store), names(checkpoint)) == before and names(run) == {"checkpoints", "metrics.json"}
    assert (run / "metrics.json").read_text() == "of the run"


def test_refused_inputs_leave_no_folder(evaluate: Callable[..., int], tmp_path: Path) -> None:
    for words in (["classes=Fracture,Pneumonia"], ["image_ids=missing"], ["per_class=0"]):
        assert evaluate("zero-shot", tmp_path / "new" / "out", *words) == 2
    assert not names(tmp_path)
    (tmp_path / "there").mkdir()
    assert evaluate("zero-shot", tmp_path / "there", "classes=Fracture,Pneumonia") == 2
    assert names(tmp_path) == {"there"}


def test_the_current_folder(evaluate: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate("zero-shot", ".", "pictures=false") == 0
    assert names(tmp_path) == {KIND_FILE, "metrics.json", "predictions.csv", "selection.csv"}


def test_one_process_at_a_time(evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    with hold_out(out, "evaluation", tmp_path / "run", tmp_path / "data"):
        assert evaluate("zero-shot", out) == 1
        error = capsys.readouterr().err
        assert f"is in use by process {os.getpid()} on " in error and error.count("\n") == 1
        with pytest.raises(RunError), hold_out(out, "evaluation", tmp_path / "run", tmp_path / "data"):
            pass
    assert not out.exists()
    with hold_out(out, "evaluation", tmp_path / "run", tmp_path / "data"):
        (out / "metrics.json").touch()
    holds = pytest.raises(UsageError, match="holds results of an evaluation")
    with holds, hold_out(out, "fine-tuning", tmp_path / "run", tmp_path / "data"):
        pass


def test_an_interrupt_leaves_nothing(
    evaluate: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prior_fast.evaluation.evaluate.Encoder", interrupt)
    assert evaluate("zero-shot", tmp_path / "out") == 130
    assert not names(tmp_path)


@pytest.mark.parametrize("words", [["by=study", "studies=1"], ["by=study", "studies=2"], ["per_class=1"]])
def test_retrieval_of_the_fewest_studies(
    words: list[str], store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = ["--checkpoint", str(checkpoint), "--data", str(store), "--out", str(tmp_path / "out")]
    assert main(["evaluate", "retrieval", *paths, "device=cpu", *words]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["data"]["selected"] == (5 if words == ["per_class=1"] else int(words[1][-1]))


@pytest.mark.parametrize("verify, code", [("full", 2), ("sizes", 0)])
def test_damage_is_found_unless_only_sizes_are_compared(
    verify: str, code: int, store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = shutil.copytree(store, tmp_path / "data")
    content = bytearray((data / "images.npy").read_bytes())
    content[-1] ^= 1
    (data / "images.npy").write_bytes(content)
    paths = ["--checkpoint", str(checkpoint), "--data", str(data), "--out", str(tmp_path / "out")]
    words = [] if verify == "full" else ["verify=sizes"]
    assert main(["evaluate", "zero-shot", *paths, "device=cpu", "per_class=1", *words]) == code
    assert ("images.npy was changed" in capsys.readouterr().err) == (code == 2)
    if code == 0:
        assert "verify" not in json.loads((tmp_path / "out" / "metrics.json").read_text())["protocol"]


def test_ids_that_begin_like_formulas_are_read_as_they_were(tmp_path: Path) -> None:
    ids = ["=1+1", "-x", "+7", "@a", "'b", "c"]
    write_csv(tmp_path / "selection.csv", ("image_id", "class"), [(name, "-A") for name in ids])
    assert "'=1+1,'-A" in (tmp_path / "selection.csv").read_text()
    assert read_ids("image_ids", str(tmp_path / "selection.csv"), ["-A"]) == [(name, 0) for name in ids]

"""`prior-fast evaluate generation` and `bank` from their arguments to their files and error lines."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from prior_fast.cli.main import main
from tests.evaluation.fake_store import write_checkpoint, write_store


def evaluate(task: str, checkpoint: Path, data: Path, out: Path, *words: str) -> int:
    return main(["evaluate", task, "--checkpoint", str(checkpoint), "--data", str(data), "--out", str(out), *words])


def metrics_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "metrics.json").read_text())


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_generation(store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("generation", checkpoint, store, tmp_path, "device=cpu") == 0
    report = metrics_of(tmp_path)
    assert report["protocol"] == {"studies": 1000, "bank_studies": 1000, "seed": 0}
    assert report["data"]["split"] == "test" and report["metrics"]["studies"] == 17
    reconstruction, generated = report["metrics"]["reconstruction"], report["metrics"]["generated_prototypes"]
    assert reconstruction["measured"] == 17 and reconstruction["overall"]["wrong_report"]["targets"] == 17
    assert reconstruction["overall"]["without_finding"]["true_is_better"]["chance"] == 0.5
    assert generated["images"] == 17 and generated["queries"] == 16
    # The store has no validation studies.
    assert generated["silence"]["split"] == "train"
    rows = read_csv(tmp_path / "reconstruction.csv")
    pairs = [(float(row["error_true"]), float(row["error_wrong_report"])) for row in rows]
    better = [0.5 if own == pytest.approx(other, rel=1e-5) else float(own < other) for own, other in pairs]
    assert reconstruction["overall"]["wrong_report"]["true_is_better"]["value"] == pytest.approx(sum(better) / 17)
    assert len(read_csv(tmp_path / "generated.csv")) == 17
    shown = capsys.readouterr().out
    assert "chance" in shown and "Pleural Effusion" in shown and "queries speak" in shown


def test_bank(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoints", store, stage=2)
    assert evaluate("bank", checkpoint, store, tmp_path / "out", "studies=6") == 0
    report = metrics_of(tmp_path / "out")
    assert report["data"]["split"] == "train" and report["protocol"] == {"studies": 6, "context": "report", "seed": 0}
    found = report["metrics"]
    rows = read_csv(tmp_path / "out" / "prototypes.csv")
    assert found["studies"] == 6 and found["sentences"] == 30 == sum(int(row["sentences"]) for row in rows)
    assert len(rows) == found["prototypes_used"] <= found["prototypes"]
    exact = sum(int(row["sentences"]) * float(row["purity"]) for row in rows) / 30
    assert found["every_sentence"]["purity"]["all three"]["value"] == pytest.approx(exact)
    assert "k-means" in capsys.readouterr().out


def test_sentences_alone_are_each_counted_once(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert evaluate("bank", checkpoint, store, tmp_path, "context=alone") == 0
    found = metrics_of(tmp_path)["metrics"]
    typical = [row[name] for row in read_csv(tmp_path / "prototypes.csv") for name in ("typical", "typical_2")]
    assert len([text for text in typical if text]) == len({text for text in typical if text})
    assert found["sentences"] < 40


@pytest.mark.parametrize("task", ["generation", "bank"])
def test_the_same_command_gives_the_same_numbers_in_batches_of_any_size(
    task: str, store: Path, checkpoint: Path, tmp_path: Path
) -> None:
    for out, size in (("a", 64), ("b", 64), ("c", 5)):
        assert evaluate(task, checkpoint, store, tmp_path / out, f"batch_size={size}") == 0
    first, again, other = (metrics_of(tmp_path / out)["metrics"] for out in "abc")
    assert first == again
    if task == "bank":
        assert other["every_sentence"]["purity"] == first["every_sentence"]["purity"]
    else:
        found = (m["reconstruction"]["overall"]["without_finding"]["error_other"] for m in (first, other))
        assert next(found) == pytest.approx(next(found), rel=1e-4)


def test_without_annotations_and_without_a_bank_the_rest_is_measured(store: Path, tmp_path: Path) -> None:
    plain = write_store(tmp_path / "plain", per_class=2, annotated=False)
    checkpoint = write_checkpoint(tmp_path / "checkpoints", plain, stage=3)
    assert evaluate("generation", checkpoint, plain, tmp_path / "a", "bank_studies=3") == 0
    found = metrics_of(tmp_path / "a")["metrics"]
    assert "no annotations" in found["reconstruction"]["note"] and found["generated_prototypes"]["images"] == 12
    without = write_checkpoint(tmp_path / "without", store, stage=3, words=["model.use_bank=false"])
    assert evaluate("generation", without, store, tmp_path / "b") == 0
    found = metrics_of(tmp_path / "b")["metrics"]
    assert "use_bank=false" in found["generated_prototypes"]["note"] and found["reconstruction"]["measured"] == 17


@pytest.mark.parametrize(
    "task, stage, word, message",
    [
        ("generation", 2, "seed=1", "is from stage 2; stage 3 trains the decoders: give a checkpoint of stage 3"),
        ("generation", 3, "model.use_reconstruction=false", "model.use_reconstruction=false, so the decoders can't be"),
        ("bank", 1, "seed=1", "is from stage 1; stage 2 trains the bank of prototypes: give a checkpoint of stage 2"),
        ("bank", 3, "model.use_bank=false", "model.use_bank=false, so the bank of prototypes can't be measured"),
    ],
)
def test_untrained_parts_are_refused(
    task: str, stage: int, word: str, message: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoints", store, stage=stage, words=[word])
    assert evaluate(task, checkpoint, store, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "task, words, message",
    [
        ("generation", ["studis=3"], "unknown setting 'studis': did you mean 'studies'?"),
        ("generation", ["studies=-1"], "studies=-1: must be at least 0"),
        ("generation", ["context=alone"], "context is a setting of bank, not of generation: leave it out"),
        ("bank", ["bank_studies=3"], "bank_studies is a setting of generation, not of bank: leave it out"),
        ("bank", ["context=both"], "context=both: choose from report, alone"),
        ("bank", ["batch_size=0"], "batch_size=0: must be at least 1"),
        ("bank", ["seed=4294967296"], "seed=4294967296: must be less than 4294967296"),
        ("bank", ["--split", "validate"], "the split 'validate'"),
        ("generation", ["--split", "tets"], "did you mean 'test'?"),
    ],
)
def test_wrong_use_is_one_line(
    task: str,
    words: list[str],
    message: str,
    store: Path,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(task, checkpoint, store, tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("task", ["generation", "bank"])
def test_help_has_an_example(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["evaluate", task, "--help"])
    assert done.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown and f"  prior-fast evaluate {task} --checkpoint" in shown

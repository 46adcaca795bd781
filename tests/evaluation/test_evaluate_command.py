"""`prior-fast evaluate` from its arguments to its files and error lines."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from prior_fast.cli.main import main
from tests.evaluation.fake_store import write_checkpoint, write_store


def evaluate(task: str, checkpoint: Path, store: Path, out: Path, *words: str) -> int:
    return main(["evaluate", task, "--checkpoint", str(checkpoint), "--data", str(store), "--out", str(out), *words])


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_zero_shot(store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("zero-shot", checkpoint, store, tmp_path / "out", "per_class=2", "device=cpu") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["data"]["selected"] == 10 and metrics["data"]["studies"] == 17
    assert metrics["data"]["available_per_class"]["Edema"] == 3
    assert metrics["protocol"]["local_weight"] == 1.0 and metrics["protocol"]["per_class"] == 2
    assert metrics["checkpoint"]["stage"] == 3 and metrics["checkpoint"]["path"] == str(checkpoint)
    assert metrics["pointing_game"]["overall"]["targets"] == 17
    selection, predictions = (read_csv(tmp_path / "out" / f"{name}.csv") for name in ("selection", "predictions"))
    assert [row["study_id"] for row in selection] == [row["study_id"] for row in predictions]
    right = [row["class"] == row["predicted"] for row in predictions]
    assert metrics["metrics"]["accuracy"]["value"] == pytest.approx(np.mean(right))
    for row in predictions:
        scores = {name.removeprefix("score "): float(value) for name, value in row.items() if name.startswith("score ")}
        assert row["predicted"] == max(scores, key=scores.__getitem__)
        # The sum of two softmaxes over the classes.
        assert sum(scores.values()) == pytest.approx(2, abs=1e-6)
    shown = capsys.readouterr().out
    assert "accuracy" in shown and "chance" in shown and "pointing game" in shown


def test_the_same_command_gives_the_same_numbers(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        assert evaluate("zero-shot", checkpoint, store, tmp_path / out) == 0
    first, second = (json.loads((tmp_path / out / "metrics.json").read_text()) for out in ("a", "b"))
    assert first.pop("seconds") is not None and second.pop("seconds") is not None
    assert first == second


def test_retrieval_does_not_depend_on_the_batch_size(store: Path, tmp_path: Path) -> None:
    # An untrained model hardly distinguishes images; with five studies, gaps between scores are 300 times the rounding.
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints", store, stage=1)
    found = []
    for size in (3, 64):
        out, words = tmp_path / str(size), (f"batch_size={size}", "per_class=1", "pictures=false")
        assert evaluate("retrieval", checkpoint, store, out, *words) == 0
        found.append(json.loads((tmp_path / str(size) / "metrics.json").read_text())["metrics"])
    for direction in ("image_to_text", "text_to_image"):
        for level in ("class_level", "instance_level"):
            for name, value in found[0][direction][level].items():
                assert value["value"] == pytest.approx(found[1][direction][level][name]["value"])
    rows = read_csv(tmp_path / "3" / "predictions.csv")
    ranks = [float(row["rank_of_own_report"]) for row in rows]
    assert found[0]["image_to_text"]["instance_level"]["mean_rank"]["value"] == pytest.approx(np.mean(ranks))
    assert all((row["report_1"] == row["study_id"]) == (float(row["rank_of_own_report"]) == 1) for row in rows)


def test_the_preset_decides_the_local_weight(store: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints", store, stage=1, name="released")
    assert evaluate("zero-shot", checkpoint, store, tmp_path / "a") == 0
    assert evaluate("zero-shot", checkpoint, store, tmp_path / "b", "local_weight=0.25") == 0
    weights = [json.loads((tmp_path / x / "metrics.json").read_text())["protocol"] for x in ("a", "b")]
    assert [protocol["local_weight"] for protocol in weights] == [0.5, 0.25]
    assert "not trained in stage 1" in weights[0]["bank"]


def test_a_dataset_with_another_tokenizer_and_no_marks(store: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = write_store(tmp_path / "other", per_class=2, seed=5, annotated=False)
    shutil.rmtree(other / "tokenizer")
    info = json.loads((other / "dataset.json").read_text())
    info["files"] = {name: facts for name, facts in info["files"].items() if not name.startswith("tokenizer/")}
    (other / "dataset.json").write_text(json.dumps(info))
    assert evaluate("zero-shot", checkpoint, other, tmp_path / "out") == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "pointing_game" not in metrics and metrics["data"]["selected"] == 10


@pytest.mark.parametrize(
    "words, message",
    [
        (["per_clas=3"], "unknown setting 'per_clas': did you mean 'per_class'?"),
        (["per_class=0"], "per_class=0: must be at least 1"),
        (["seed=-1"], "seed=-1: must not be negative"),
        (["batch_size=many"], "batch_size=many: must be a whole number"),
        (["classes=Edma,Cardiomegaly"], "has no class 'Edma': did you mean 'Edema'? It has Atelectasis, Cardiomegaly,"),
        (["classes=Edema,edema"], "each named once"),
        (["classes=Fracture,Pneumonia"], "none of the 17 studies of the test split"),
        (["prompt=effusion"], "must have one {}"),
        (["local_weight=nan"], "local_weight=nan"),
        (["--split", "validate"], "the split 'validate'"),
        (["--split", "tets"], "did you mean 'test'?"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], message: str, store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("zero-shot", checkpoint, store, tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_missing_and_broken_inputs(
    store: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken / "step-00000036")
    (broken / "step-00000036" / "tokenizer" / "tokenizer.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for given, data, message in (
        (tmp_path / "none", store, "no checkpoint at"),
        (tmp_path / "empty", store, "no checkpoint in"),
        (broken, store, "can't be read"),
        (checkpoint, tmp_path / "none", "is no prepared dataset"),
        (checkpoint, tmp_path / "empty", "is no prepared dataset"),
    ):
        assert evaluate("retrieval", given, data, tmp_path / "out") == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

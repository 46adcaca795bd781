"""Evaluation, pictures and attention of models trained without the bank, local alignment or reconstruction."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prior_fast import PRIOR
from prior_fast.cli.main import main
from prior_fast.errors import UsageError
from prior_fast.evaluation.encode import Encoder
from prior_fast.training.checkpoint import open_checkpoint
from tests.evaluation.fake_store import write_checkpoint

BANK, LOCAL, RECONSTRUCTION = (
    f"model.{name}=false" for name in ("use_bank", "use_local_alignment", "use_reconstruction")
)


@pytest.fixture(scope="module")
def ablated(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`ablated(word, stage)` -> a checkpoint with the weights of `checkpoint`, of a model with the setting."""
    made: dict[tuple[Any, ...], Path] = {}

    def write(word: str, stage: int = 3, name: str = "tiny") -> Path:
        key = (word, stage, name)
        if key not in made:
            folder = tmp_path_factory.mktemp("ablated") / "checkpoints"
            made[key] = write_checkpoint(folder, store, stage, name=name, words=[word])
        return made[key]

    return write


def evaluate(task: str, checkpoint: Path, store: Path, out: Path, *words: str) -> dict[str, Any]:
    command = ["evaluate", task, "--checkpoint", str(checkpoint), "--data", str(store), "--out", str(out)]
    assert main([*command, "pictures=false", "device=cpu", *words]) == 0
    return json.loads((out / "metrics.json").read_text())


def pictures(checkpoint: Path, store: Path, out: Path) -> dict[str, Any]:
    command = ["pictures", "--checkpoint", str(checkpoint), "--data", str(store), "--out", str(out)]
    assert main([*command, "count=1", "device=cpu"]) == 0
    sections = json.loads((out / "report.json").read_text())["sections"]
    page = (out / "index.html").read_text()
    assert all(section["left_out"] is None or section["left_out"] in page for section in sections.values())
    return sections


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_without_a_bank_no_stage_reads_it(
    stage: int, ablated: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    checkpoint = ablated(BANK, stage)
    encoder = Encoder(open_checkpoint(checkpoint), "cpu")
    texts = encoder.texts([["The heart is enlarged ."], ["No pneumothorax .", "The bones are intact ."]])
    assert not encoder.uses_bank and encoder.aligns_locally
    assert (texts.prototypes == texts.sentences).all()
    assert evaluate("zero-shot", checkpoint, store, tmp_path)["protocol"]["bank"] == "not read: model.use_bank=false"


def test_without_a_bank_zero_shot_equals_that_of_a_checkpoint_before_the_bank(
    ablated: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    first = write_checkpoint(tmp_path / "first", store, stage=1)
    found = [
        evaluate("zero-shot", checkpoint, store, tmp_path / name)
        for name, checkpoint in (("a", ablated(BANK)), ("b", first))
    ]
    for report in found:
        assert report.pop("protocol")["bank"].startswith("not read: ") and report.pop("seconds") > 0
        assert report.pop("checkpoint")["stage"] in (1, 3)
    assert found[0] == found[1]


def test_without_a_bank_its_pictures_are_left_out(ablated: Callable[..., Path], store: Path, tmp_path: Path) -> None:
    sections = pictures(ablated(BANK), store, tmp_path)
    reason = "This model was trained with model.use_bank=false: it has no trained bank."
    assert [key for key, section in sections.items() if section["left_out"] == reason] == [
        "embedding",
        "prototypes",
        "queries",
    ]
    assert sections["embedding"]["files"] == ["embedding.png"]
    assert sections["reconstruction"]["files"] and sections["attention"]["files"]


@pytest.mark.parametrize("name", ["tiny", "released"])
def test_without_local_alignment_only_the_cosine_counts(
    name: str, ablated: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    checkpoint = ablated(LOCAL, name=name)
    own = evaluate("zero-shot", checkpoint, store, tmp_path / "own")
    full = write_checkpoint(tmp_path / "checkpoints", store, stage=3, name=name)
    cosine = evaluate("zero-shot", full, store, tmp_path / "full", "local_weight=0")
    assert own["protocol"]["local_weight"] == 0
    assert own["protocol"]["local_score"] == "left out: model.use_local_alignment=false"
    assert own["protocol"]["pointing_game"] == "left out: model.use_local_alignment=false"
    assert "pointing_game" not in own and "pointing_game" in cosine
    assert "pointing_game" not in cosine["protocol"] and "local_score" not in cosine["protocol"]
    assert cosine["metrics"].pop("accuracy_local_only")
    # The full model's sum has a second softmax with weight 0.
    assert own["metrics"] == cosine["metrics"]
    for row in read_csv(tmp_path / "own" / "predictions.csv"):
        assert sum(float(value) for key, value in row.items() if key.startswith("score ")) == pytest.approx(1)


def test_without_local_alignment_retrieval_ranks_by_the_cosine(
    ablated: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    own = evaluate("retrieval", ablated(LOCAL), store, tmp_path / "own")
    full = write_checkpoint(tmp_path / "checkpoints", store, stage=3)
    cosine = evaluate("retrieval", full, store, tmp_path / "full", "local_weight=0")
    assert own["protocol"]["local_weight"] == 0 and "local_score" in own["protocol"]
    assert "pointing_game" not in own["protocol"]
    assert own["metrics"] == cosine["metrics"]


def test_gloria_without_local_alignment_uses_the_cosine(
    ablated: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    own = evaluate("zero-shot", ablated(LOCAL), store, tmp_path / "own", "score=gloria")
    full = write_checkpoint(tmp_path / "checkpoints", store, stage=3)
    cosine = evaluate("zero-shot", full, store, tmp_path / "full", "score=gloria", "local_weight=0")
    assert own["protocol"]["local_weight"] == 0
    assert cosine["metrics"].pop("accuracy_local_only")
    assert own["metrics"] == cosine["metrics"]


@pytest.mark.parametrize("task", ["zero-shot", "retrieval"])
@pytest.mark.parametrize("words", [["local_weight=1"], ["local_weight=0.5"]])
def test_a_local_weight_without_local_alignment_is_refused(
    task: str,
    words: list[str],
    ablated: Callable[..., Path],
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [
        "evaluate",
        task,
        "--checkpoint",
        str(ablated(LOCAL)),
        "--data",
        str(store),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main([*command, *words]) == 2
    error = capsys.readouterr().err
    weight = float(words[0].partition("=")[2])
    assert f"local_weight={weight}: the model was trained with model.use_local_alignment=false" in error
    assert error.count("\n") == 1 and not (tmp_path / "o").exists()
    assert main([*command, "local_weight=0", "pictures=false"]) == 0


def test_softmax_attention_has_no_local_score_to_measure(store: Path, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "checkpoints", store, stage=3, words=["model.attention=softmax"])
    metrics = evaluate("zero-shot", checkpoint, store, tmp_path / "out")["metrics"]
    assert "accuracy_global_only" in metrics and "accuracy_local_only" not in metrics


def test_without_local_alignment_attention_is_left_out(
    ablated: Callable[..., Path], store: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    sections = pictures(ablated(LOCAL), store, tmp_path)
    assert "model.use_local_alignment=false" in sections["attention"]["left_out"]
    assert not sections["attention"]["files"] and not list(tmp_path.glob("attention*"))
    assert sections["reconstruction"]["files"] and sections["prototypes"]["files"] and sections["queries"]["files"]
    model = PRIOR.from_pretrained(ablated(LOCAL), "cpu")
    image = rng.integers(0, 255, (64, 64), dtype=np.uint8)
    with pytest.raises(UsageError, match=r"model\.use_local_alignment=false"):
        model.attention(image, "The heart is enlarged .")
    assert model.similarity(model.encode_images(image), model.encode_reports([["The heart is enlarged ."]])).shape == (
        1,
        1,
    )


@pytest.mark.parametrize("stage", [2, 3])
def test_without_reconstruction_its_picture_is_left_out(
    stage: int, ablated: Callable[..., Path], store: Path, tmp_path: Path
) -> None:
    sections = pictures(ablated(RECONSTRUCTION, stage), store, tmp_path)
    assert "model.use_reconstruction=false" in sections["reconstruction"]["left_out"]
    assert [key for key, section in sections.items() if section["left_out"]] == ["reconstruction", "losses"]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))

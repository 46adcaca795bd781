"""What is not finite is named and never saved, and what the message advises can be done."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from prior_fast.cli.main import main
from prior_fast.training import run as training_run
from prior_fast.training.checkpoint import Position, list_checkpoints
from prior_fast.training.finite import NotFinite, check_finite, check_weights, not_finite
from prior_fast.training.log import LossWindow
from prior_fast.training.step import StageTrainer


def train(data: Path, out: Path, *words: str) -> int:
    return main(["train", "--data", str(data), "--out", str(out), *words])


def test_a_wild_run_saves_nothing_and_goes_on_as_advised(
    small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "run"
    wild = ["learning_rate=1e30,1e30,1e30", "learning_rate_start=1e-5,1e30,1e30", "warmup_epochs=0.2,0,0"]
    settings = [*small_settings, *wild, "max_steps_per_stage=5", "checkpoint_every=1", "log_every=100"]
    assert train(small_store, out, "--preset", "tiny", *settings) == 1
    said = capsys.readouterr().err
    assert said.startswith("prior-fast: stage 1, ") and said.count("\n") == 1
    assert "--resume auto with a lower learning_rate or clip_norm goes on from step-00000001" in said
    assert "removed, since its weights led here: step-00000002" in said
    for path in list_checkpoints(out / "checkpoints"):
        for name in ("model", "optimizer"):
            tensors = safetensors.torch.load_file(path / f"{name}.safetensors")
            assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    calm = "learning_rate=1e-4,1e-4,1e-4", "learning_rate_start=1e-5,1e-5,1e-5", "clip_norm=0.5"
    assert train(small_store, out, "--resume", "auto", *calm) == 0
    assert json.loads((out / "metrics.json").read_text())["finished"]


@pytest.mark.parametrize("stage", [2, 3])
def test_weights_that_became_infinite_end_a_run_in_one_line(
    stage: int,
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Before k-means of stage 2, and before the matching of stage 3, which refuses such costs."""
    begin = training_run.Run._stage

    def poisoned(run: training_run.Run, number: int, *rest: object) -> bool:
        if number == stage:
            with torch.no_grad():
                next(run.model.text_encoder.parameters()).fill_(float("nan"))
        return begin(run, number, *rest)

    monkeypatch.setattr(training_run.Run, "_stage", poisoned)
    assert train(small_store, tmp_path / "run", "--preset", "tiny", *small_settings, "log_every=100") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"prior-fast: stage {stage}, ") and said.count("\n") == 1
    assert "not finite" in said or "is nan" in said
    went_on = {2: "starts again, since there is no earlier checkpoint", 3: "goes on from step-00000002"}
    assert f"{went_on[stage]} (removed, since its weights led here: step-0000000{2 * stage - 2})" in said


@pytest.mark.parametrize("what", ["weight", "optimizer's state"])
def test_a_last_update_that_breaks_the_weights_is_not_saved(
    what: str,
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """The terms of the step are those before its update, and finite."""
    take = StageTrainer.step

    def breaking(trainer: StageTrainer, *rest: Any) -> dict[str, torch.Tensor]:
        terms = take(trainer, *rest)
        parameter = list(trainer.parameters.values())[-1]
        broken = parameter if what == "weight" else trainer.optimizer.state[parameter]["exp_avg"]
        with torch.no_grad():
            broken.view(-1)[-1] = float("inf")
        return terms

    monkeypatch.setattr(StageTrainer, "step", breaking)
    settings = [*small_settings, "checkpoint_every=1"]
    assert train(small_store, tmp_path / "run", "--preset", "tiny", *settings) == 1
    said = capsys.readouterr().err
    assert f"stage 1, after step 1: the {what} " in said and " is not finite" in said and said.count("\n") == 1
    assert list_checkpoints(tmp_path / "run" / "checkpoints") == []


def test_terms_are_named_before_the_norm_and_the_norm_before_their_sum() -> None:
    nan, inf = float("nan"), float("inf")
    with pytest.raises(NotFinite, match=r"^here: the loss term local_image is nan$"):
        check_finite({"loss": nan, "gradient_norm": inf, "global_alignment": 1.0, "local_image": nan}, "here")
    with pytest.raises(NotFinite, match=r"^here: the norm of the gradient is inf"):
        check_finite({"loss": nan, "gradient_norm": inf}, "here")
    with pytest.raises(NotFinite, match=r"^here: the loss term loss on the validation studies is nan"):
        check_finite({"loss": nan}, "here", part=" on the validation studies")
    check_finite({"loss": 1.0}, "here")


def test_the_first_step_that_is_not_finite_is_named() -> None:
    window = LossWindow()
    for value in (1.0, float("inf"), float("nan")):
        window.add({"loss": torch.tensor(value), "prototype": torch.tensor(value)})
    with pytest.raises(NotFinite, match=r"^stage 2, step 6: the loss term prototype is inf") as caught:
        window.close(Position(2, 7, 20))
    assert caught.value.steps == 18  # the state after this step is in no better checkpoint


def test_every_kind_of_tensor_is_checked(rng: np.random.Generator) -> None:
    tensors = {
        "fine": torch.from_numpy(rng.normal(size=(3, 4))),
        "whole": torch.arange(3),
        "empty": torch.zeros(0),
        "nan": torch.tensor([1.0, float("nan")]),
        "half": torch.tensor([float("-inf")], dtype=torch.bfloat16),
        "strided": torch.zeros(4, 4).T,
    }
    assert not_finite(tensors) == ["nan", "half"]
    with pytest.raises(NotFinite, match=r"^there: the weight nan and 1 more are not finite$"):
        check_weights(tensors, "there")
    check_weights({"fine": tensors["fine"]}, "there")


def test_the_norm_of_the_gradient_is_logged(small_store: Path, small_settings: list[str], tmp_path: Path) -> None:
    for clip in ("1e9", "0"):
        out = tmp_path / clip
        assert train(small_store, out, "--preset", "tiny", *small_settings, f"clip_norm={clip}", "precision=fp32") == 0
    logs = [
        [json.loads(line) for line in (tmp_path / clip / "log.jsonl").read_text().splitlines()] for clip in ("1e9", "0")
    ]
    norms = [[line["gradient_norm"] for line in log if line["kind"] == "train"] for log in logs]
    assert len(norms[0]) == 6 and min(norms[0]) > 0
    # A bound that is never reached changes nothing but the last bits.
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)

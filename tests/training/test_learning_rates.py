"""The learning rate of the text encoder is a factor of that of the other parts."""

import numpy as np
import pytest
import torch

from prior_fast.config import apply_overrides, preset
from prior_fast.training.distributed import Ranks
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer
from tests.training.test_stages import make_batch, make_model


@pytest.mark.parametrize("factor", [0.25, 1.0, 0.0])
def test_the_text_encoder_moves_by_its_factor(
    factor: float, small_settings: list[str], rng: np.random.Generator
) -> None:
    """Adam's first step moves a weight by the learning rate, unless its gradient is nearly zero."""
    words = [*small_settings, f"text_learning_rate={factor}", "weight_decay=0"]
    config = apply_overrides(preset("tiny"), words)
    model = make_model(config.model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainer = StageTrainer(model, 1, config, Ranks(0, 1, None, torch.device("cpu")))
    trainer.step(make_batch(rng), StepContext(0.5, seed=1), 1e-3)
    moved = {True: 0.0, False: 0.0}
    for name, parameter in model.named_parameters():
        text = name.startswith("text_encoder.")
        moved[text] = max(moved[text], float((parameter.detach() - before[name]).abs().max()))
    assert moved[False] == pytest.approx(1e-3, rel=0.01)
    assert moved[True] == pytest.approx(factor * 1e-3, rel=0.01, abs=1e-9)

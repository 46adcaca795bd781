"""What the residuals' dtype changes in a training: `python -m tests.model.residual_training`.

Trains a small model twice in stage 3 under a CPU's autocast to bfloat16, with residuals in float32 and in bfloat16, the
same weights, batches and noise. Prints each term's mean over the last steps of both, and the greatest difference of a
step. A third run, in float32 residuals with weights moved by 1e-6 of themselves, shows what rounding alone changes.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch

from prior_fast.batch import PackedBatch, pack_reports
from prior_fast.config import ModelConfig, RunConfig, apply_overrides, preset
from prior_fast.model.prior import PRIORModel
from prior_fast.training.distributed import Ranks
from prior_fast.training.stages import StepContext
from prior_fast.training.step import StageTrainer
from tests.small_model import SMALL_MODEL

VOCABULARY = 50
DROPOUT = ("model.text.dropout=0.1", "model.sentence_decoder.dropout=0.1")


def config(residual: str, *more: str) -> RunConfig:
    """The small model with two text layers, under autocast to bfloat16."""
    both = (f"model.text.residual={residual}", f"model.sentence_decoder.residual={residual}")
    sizes = ("batch_size=8", "model.text.layers=2", "precision=bf16", "compile=off")
    return apply_overrides(preset("tiny"), [*SMALL_MODEL, *sizes, *both, *more])


def make_model(structure: ModelConfig, moved: float = 0.0) -> PRIORModel:
    """Equal weights for equal shapes; each one is then multiplied by 1 + moved times a normal number."""
    torch.manual_seed(0)
    model = PRIORModel(structure, VOCABULARY)
    if moved:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + moved * torch.randn_like(parameter))
    return model


def batches(count: int, pairs: int = 8) -> Iterator[PackedBatch]:
    """Made-up pairs whose images and words both follow a hidden number of the pair."""
    rng = np.random.default_rng(1)
    patterns = rng.normal(size=(4, 1, 224, 224))
    for _ in range(count):
        kinds = rng.integers(0, 4, pairs)
        reports = [[5 + 10 * kind + rng.integers(0, 10, rng.integers(2, 9)) for _ in range(3)] for kind in kinds]
        images = torch.tensor(patterns[kinds] + rng.normal(size=(pairs, 1, 224, 224)), dtype=torch.float32)
        numbers = torch.arange(pairs)
        yield pack_reports(reports, 2, 3).with_images(images, study_ids=numbers, image_rows=numbers)


def train(run: RunConfig, steps: int, moved: float = 0.0) -> dict[str, list[float]]:
    """The terms of each step of stage 3."""
    model = make_model(run.model, moved).train()
    trainer = StageTrainer(model, 3, run, Ranks(0, 1, None, torch.device("cpu")))
    found: dict[str, list[float]] = {}
    for number, batch in enumerate(batches(steps)):
        torch.manual_seed(number)  # dropout's masks
        for name, term in trainer.step(batch, StepContext(0.5, seed=number), 1e-3).items():
            found.setdefault(name, []).append(term.item())
    trainer.close()
    return found


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--last", type=int, default=10, help="steps whose mean is compared")
    chosen = parser.parse_args()
    one = train(config("float32", *DROPOUT), chosen.steps)
    two = train(config("bfloat16", *DROPOUT), chosen.steps)
    moved = train(config("float32", *DROPOUT), chosen.steps, 1e-6)
    print(f"{'term':24}{'first':>10}{'float32':>10}{'bfloat16':>10}{'moved':>10}  greatest difference: bfloat16, moved")
    for name, values in one.items():
        means = (np.mean(run[name][-chosen.last :]) for run in (one, two, moved))
        gaps = (max(abs(a - b) for a, b in zip(values, run[name], strict=True)) for run in (two, moved))
        print(
            f"{name:24}{values[0]:10.4f}" + "".join(f"{m:10.4f}" for m in means) + "".join(f"{g:12.2e}" for g in gaps)
        )


if __name__ == "__main__":
    main()

"""A checkpoint whose embeddings are not finite gives no numbers and no pictures: one line names it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import RunError
from prior_fast.evaluation.encode import Encoder
from prior_fast.evaluation.pointing import pointing_game
from prior_fast.pictures.cached_encoder import CachedEncoder
from prior_fast.training.checkpoint import open_checkpoint
from tests.evaluation import fake_store
from tests.evaluation.fake_store import write_checkpoint


@pytest.fixture(scope="module")
def overflowing(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of finite weights that are too large: the embeddings of images and texts overflow."""
    with pytest.MonkeyPatch.context() as patch:
        build = fake_store.build_model

        def too_large(*args: object) -> object:
            model, notes = build(*args)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "projection" in name or "embeddings.word" in name or "embed.weight" in name:
                        parameter.mul_(1e37)
            return model, notes

        patch.setattr(fake_store, "build_model", too_large)
        return write_checkpoint(tmp_path_factory.mktemp("large") / "checkpoints", store, stage=3)


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "zero-shot"],
        ["evaluate", "retrieval"],
        ["evaluate", "generation"],
        ["evaluate", "bank"],
        ["pictures"],
    ],
    ids=lambda words: words[-1],
)
def test_every_command_refuses_them(
    words: list[str], overflowing: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--checkpoint", str(overflowing), "--data", str(store), "--out", str(tmp_path / "out")]
    assert main([*words, *places, "device=cpu"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"prior-fast: the embeddings of {overflowing} are not finite") and said.count("\n") == 1
    assert not (tmp_path / "out" / "metrics.json").exists() and not list(tmp_path.rglob("*.png"))


@pytest.mark.parametrize("kind", [Encoder, CachedEncoder])
def test_a_single_value_is_found(kind: type[Encoder], checkpoint: Path, store: Path) -> None:
    encoder, dataset = kind(open_checkpoint(checkpoint), "cpu"), PreparedDataset.open(store, "test")
    assert torch.isfinite(encoder.images(dataset.images, [0, 1]).whole).all()
    encode = encoder.model.encode_images

    def damaged(images: torch.Tensor) -> object:
        found = encode(images)
        found.patches[-1, 3, 0] = torch.inf
        return found

    encoder.model.encode_images = damaged
    with pytest.raises(RunError, match=r"embeddings of .* are not finite"):
        encoder.images(dataset.images, [2, 3])
    with pytest.raises(RunError, match=r"embeddings of .* are not finite"):
        pointing_game(encoder, dataset, ["Edema"], "{} is observed")


def test_great_values_whose_sum_overflows_are_finite(checkpoint: Path) -> None:
    encoder = Encoder(open_checkpoint(checkpoint), "cpu")
    encoder.require_finite("scores", torch.full((8,), 3e38), np.full(8, 1e308))
    with pytest.raises(RunError, match=r"the scores of .* are not finite: .* use another checkpoint"):
        encoder.require_finite("scores", np.array([1.0, np.nan]))


def test_scores_that_overflow_are_refused(checkpoint: Path, store: Path, tmp_path: Path) -> None:
    from prior_fast.evaluation.config import evaluation_config
    from prior_fast.evaluation.evaluation_source import prepared_source
    from prior_fast.evaluation.result import EvaluationSet
    from prior_fast.evaluation.retrieval import retrieval
    from prior_fast.evaluation.selection import choose
    from prior_fast.evaluation.zero_shot import zero_shot

    encoder = Encoder(open_checkpoint(checkpoint), "cpu")
    with torch.no_grad():
        encoder.model.logit_scale.fill_(1e4)
    source = prepared_source(PreparedDataset.open(store, "test"))
    for task, run in (("zero-shot", zero_shot), ("retrieval", retrieval)):
        config = evaluation_config([], task=task)
        chosen = choose(source, config, config.per_class)
        with pytest.raises(RunError, match=r"the scores of .* are not finite"):
            run(encoder, EvaluationSet(chosen, chosen if task == "retrieval" else None), config)

"""What a checkpoint of the released code's training says is read, and what can't be run is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_fast.batch import pack_reports
from prior_fast.cli.main import main
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.errors import UsageError
from prior_fast.evaluation.encode import Encoder
from prior_fast.model.prior import PRIORModel
from prior_fast.training.checkpoint import Checkpoint, open_checkpoint
from prior_fast.weights.convert import inspect
from tests.released_files import released_names, small_released


def converted(content: Any, dataset: PreparedDataset, folder: Path, name: str = "last.ckpt", *words: str) -> Checkpoint:
    """The checkpoint that the command makes of a file with `content`."""
    torch.save(content, folder / name)
    out = folder / "out"
    tokenizer = str(dataset.root / "tokenizer")
    assert main(["weights", "convert", str(folder / name), "--out", str(out), "--tokenizer", tokenizer, *words]) == 0
    return open_checkpoint(out)


# The released stages have 20, 30 and 100 epochs. A checkpoint counts the finished ones.
@pytest.mark.parametrize(
    ("facts", "name", "words", "stage", "tau"),
    [
        ({"epoch": 20}, "stage2_start.ckpt", (), 1, 0.9),
        ({"epoch": 50}, "stage3_start.ckpt", (), 2, 0.9),
        ({"epoch": 21}, "last.ckpt", (), 2, 0.9),
        ({"epoch": 150}, "last.ckpt", (), 3, 0.9),
        ({}, "stage2_start.ckpt", (), 1, 0.9),
        ({}, "stage3_start.ckpt", (), 2, 0.9),
        ({}, "total_prior.ckpt", (), 3, 0.9),
        ({"epoch": 150}, "last.ckpt", ("--stage", "1"), 1, 0.9),
        ({"epoch": 5, "hyper_parameters": {"stage1_epochs": 4, "stage2_epochs": 2}}, "last.ckpt", (), 2, 0.9),
        ({"epoch": 6, "hyper_parameters": {"stage1_epochs": 6, "temp_decay": "exp"}}, "last.ckpt", (), 1, 0.9),
        ({"epoch": 85, "hyper_parameters": {"temp_decay": "exp"}}, "last.ckpt", (), 3, 0.9 * 0.1**0.5),
        ({"epoch": 85, "hyper_parameters": {"temp_decay": "linear"}}, "last.ckpt", (), 3, 0.9 * (1 - 0.9 * 0.5)),
        ({"epoch": 150, "hyper_parameters": {"temp_decay": "exp"}}, "last.ckpt", (), 3, 0.09),
        ({"hyper_parameters": {"temp_decay": "linear"}}, "total_prior.ckpt", (), 3, 0.09),
    ],
)
def test_the_stage_and_the_temperature_are_those_of_the_file(
    facts: dict[str, Any], name: str, words: tuple[str, ...], stage: int, tau: float, model: PRIORModel,
    dataset: PreparedDataset, tmp_path: Path,
) -> None:  # fmt: skip
    content = {"state_dict": released_names(model), "global_step": 7, **facts}
    checkpoint = converted(content, dataset, tmp_path, name, *words)
    assert checkpoint.position.stage == stage
    assert checkpoint.tau == pytest.approx(tau, rel=1e-12)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["stage"], report["tau"]) == (stage, checkpoint.tau)
    # A bank that was never trained is not read.
    texts = [["no pleural effusion is seen"], ["the heart is enlarged", "the lungs are clear"]]
    found = Encoder(checkpoint, "cpu").texts(texts)
    assert torch.equal(found.sentences, found.prototypes) == (stage == 1)


def authors_gather(tokens: Tensor, state: dict[str, Tensor], lengths: list[int]) -> Tensor:
    """The released order in float64: all tokens are projected, then pooled sentence by sentence."""
    wide = {name: x.double() for name, x in state.items() if x.is_floating_point()}
    projected = tokens.double() @ wide["local_text_projection.weight"].T + wide["local_text_projection.bias"]
    pool = "item_gather.attention_pool."
    rows = []
    for x in projected.split(lengths):
        query = x @ wide[f"{pool}query.weight"].T + wide[f"{pool}query.bias"]
        key = x @ wide[f"{pool}key.weight"].T + wide[f"{pool}key.bias"]
        rows.append(torch.softmax((query @ key.T).sum(1), dim=0) @ x)
    return torch.stack(rows)


def with_attention_pool(model: PRIORModel, rng: np.random.Generator) -> dict[str, Tensor]:
    width = model.config.embed_dim
    pool = {}
    for layer in ("query", "key"):
        for kind, shape in (("weight", (width // 8, width)), ("bias", (width // 8,))):
            values = torch.tensor(rng.normal(size=shape) * 0.2, dtype=torch.float32)
            pool[f"item_gather.attention_pool.{layer}.{kind}"] = values
    return {**released_names(model), **pool}


@pytest.mark.parametrize("hidden", [64, 128])
@pytest.mark.parametrize("stated", [True, False])
def test_an_attention_pool_of_sentences_is_run_as_such(
    hidden: int, stated: bool, dataset: PreparedDataset, tmp_path: Path, rng: np.random.Generator
) -> None:
    model = small_released(dataset.vocab_size, hidden)
    state = with_attention_pool(model, rng)
    facts = {"hyper_parameters": {"gahter_pool": "attention"}} if stated else {}
    checkpoint = converted({"state_dict": state, **facts}, dataset, tmp_path)
    assert checkpoint.structure.sentence_pool == "attention"
    loaded = checkpoint.load_model()
    reports = [[rng.integers(5, 20, n) for n in (3, 1, 6)], [rng.integers(5, 20, 4)]]
    batch = pack_reports(reports, 2, 3).with_images(torch.zeros(2, 1, 1, 1), torch.arange(2), torch.arange(2))
    with torch.no_grad():
        tokens = loaded.text_encoder(batch.token_ids, batch.position_ids, batch.cu_tokens, batch.max_tokens)
        expected = authors_gather(tokens[batch.sentence_token_rows()], state, [3, 1, 6, 4])
        found = loaded.encode_sentences(batch)
    assert (found.double() - expected).abs().max() < 1e-5 * expected.abs().max()
    mean = torch.stack([x.double().mean(0) for x in tokens[batch.sentence_token_rows()].split([3, 1, 6, 4])])
    plain = mean @ state["local_text_projection.weight"].double().T + state["local_text_projection.bias"].double()
    assert (plain - expected).abs().max() > 1e-2 * expected.abs().max()  # the mean would be another model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gahter_pool": "max"}, "was trained with gahter_pool='max': it can be run only with avg or attention"),
        ({"gahter_pool": None}, ""),
        ({"gahter_pool": 3}, "was trained with gahter_pool=3: it can be run only with"),
        ({"temp_decay": "cosine"}, "was trained with temp_decay='cosine': it can be run only with fixed or linear"),
        ({"stage1_epochs": "20"}, "its entry stage1_epochs is '20', not a number of epochs"),
    ],
)
def test_what_can_not_be_run_is_refused(
    arguments: dict[str, Any], message: str, model: PRIORModel, tmp_path: Path
) -> None:
    torch.save({"state_dict": released_names(model), "hyper_parameters": arguments}, tmp_path / "file.ckpt")
    if not message:
        assert inspect(tmp_path / "file.ckpt").problem is None
        return
    with pytest.raises(UsageError, match=message):
        inspect(tmp_path / "file.ckpt")


def test_a_pool_that_is_stated_but_not_there_is_missed(model: PRIORModel, tmp_path: Path) -> None:
    content = {"state_dict": released_names(model), "hyper_parameters": {"gahter_pool": "attention"}}
    torch.save(content, tmp_path / "file.ckpt")
    assert "lacks 4 tensors that the model needs: item_gather.query.weight" in str(
        inspect(tmp_path / "file.ckpt").problem
    )


def test_a_pool_that_is_there_but_not_stated_is_refused(
    model: PRIORModel, tmp_path: Path, rng: np.random.Generator
) -> None:
    content = {"state_dict": with_attention_pool(model, rng), "hyper_parameters": {"gahter_pool": "avg"}}
    torch.save(content, tmp_path / "file.ckpt")
    with pytest.raises(UsageError, match="was trained with gahter_pool='avg', but has tensors of item_gather"):
        inspect(tmp_path / "file.ckpt")


def test_a_pool_that_does_not_fit_the_projection_is_refused(
    model: PRIORModel, tmp_path: Path, rng: np.random.Generator
) -> None:
    state = with_attention_pool(model, rng)
    state["item_gather.attention_pool.key.weight"] = torch.zeros(8, 63)
    torch.save(state, tmp_path / "file.ckpt")
    with pytest.raises(UsageError, match=r"key.weight has shape \[8, 63\], .* the second number must be 64"):
        inspect(tmp_path / "file.ckpt")


def test_half_a_pool_is_refused(model: PRIORModel, tmp_path: Path, rng: np.random.Generator) -> None:
    state = with_attention_pool(model, rng)
    del state["item_gather.attention_pool.key.bias"]
    torch.save(state, tmp_path / "file.ckpt")
    assert "lacks 1 tensors that the model needs: item_gather.key.bias" in str(inspect(tmp_path / "file.ckpt").problem)


def test_python_objects_are_not_unpickled(model: PRIORModel, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    content = {"state_dict": released_names(model), "hyper_parameters": {"optim": Path("adamw")}}
    torch.save(content, tmp_path / "file.ckpt")
    assert main(["weights", "inspect", str(tmp_path / "file.ckpt")]) == 2
    assert "more than tensors and plain values, which alone are read" in capsys.readouterr().err

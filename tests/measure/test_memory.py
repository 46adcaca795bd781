"""`prior-fast bench memory` counts what autograd keeps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prior_fast.cli.main import main
from prior_fast.config import apply_overrides, preset
from prior_fast.measure.bench_memory import MemoryOptions, SavedTensors, first_pairs, line, run_memory
from prior_fast.measure.ladder.batches import made_up_batches

SMALL = [
    *("model.image.width=8", "model.image.pool_heads=2", "model.text.hidden_size=32", "model.text.heads=2"),
    *("model.text.intermediate_size=32", "model.text.layers=1", "model.sentence_decoder.layers=1"),
    *("model.sentence_decoder.intermediate_size=32", "model.embed_dim=32", "model.bank.prototypes=16"),
    "data.max_tokens=64",
]


def test_each_storage_counts_once_and_parameters_do_not() -> None:
    weight = torch.rand(5, 7, requires_grad=True)
    x = torch.rand(11, 5, requires_grad=True)
    saved = SavedTensors([weight, x])
    with saved.counting():
        product = x @ weight  # keeps x and weight, which are known
        y = product.exp()  # keeps its output
        z = y * y.view(7, 11).reshape(11, 7)  # keeps the same storage twice
    assert saved.bytes == 11 * 7 * 4
    z.sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0


def test_the_first_pairs_of_a_batch() -> None:
    config = apply_overrides(preset("tiny"), ["batch_size=6", *SMALL])
    (batch,) = made_up_batches(config, 1, 40, 50, seed=3)
    part = first_pairs(batch, 4)
    assert len(part) == 4
    assert part.cu_tokens[-1] == len(part.token_ids)
    assert part.num_sentences == part.cu_sentences[-1] == batch.cu_sentences[4]
    # [CLS] and [SEP] belong to no sentence.
    assert part.cu_sentence_tokens[-1] == len(part.token_ids) - 2 * 4
    assert part.max_tokens == np.diff(batch.cu_tokens[:5]).max()


def test_line_is_least_squares(rng: np.random.Generator) -> None:
    x, y = rng.permutation(20)[:5].tolist(), rng.integers(0, 10**12, 5).tolist()
    slope, intercept = np.polyfit(x, y, 1)
    assert line(list(zip(x, y))) == pytest.approx((intercept, slope), rel=1e-6)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["bench", "memory", "--preset", "tiny", "--batches", "2,4,8", "--at", "64", "--mean-tokens", "40"]
    assert main([*words, "--out", str(tmp_path), *SMALL]) == 0
    report = json.loads((tmp_path / "memory.json").read_text())
    saved = [point["saved_bytes"] for point in report["points"]]
    # Twice the pairs keep about twice as much; reports differ in length, and some tensors have no batch.
    assert 1.5 < saved[1] / saved[0] < 2.5 and 1.5 < saved[2] / saved[1] < 2.5
    expected = report["parameter_bytes"] + report["saved_bytes_fixed"] + 64 * report["saved_bytes_per_pair"]
    assert report["estimate_bytes"] == pytest.approx(expected)
    assert "together at 64 pairs" in capsys.readouterr().out


def test_half_precision_keeps_less() -> None:
    settings = [*SMALL, "model.text.dropout=0"]
    kept = {
        precision: run_memory(
            MemoryOptions("tiny", 1, (2, 4), 8, mean_tokens=40, settings=[*settings, f"precision={precision}"])
        )["saved_bytes_per_pair"]
        for precision in ("fp32", "bf16")
    }
    assert kept["bf16"] < 0.9 * kept["fp32"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batches", "4"], "--batches 4: needs two different sizes"),
        (["--batches", "a,b"], "--batches a,b: must be whole numbers"),
        (["--at", "0"], "--at 0: must be 1 or more"),
    ],
)
def test_wrong_use(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "memory", "--preset", "tiny", *words]) == 2
    assert message in capsys.readouterr().err

"""Two gloo processes under torchrun take the steps that one process takes on the joined batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

from prior_fast.cli.main import main
from prior_fast.config import apply_overrides, preset
from prior_fast.data.store import PreparedDataset
from prior_fast.model.build import build_model
from prior_fast.training.checkpoint import list_checkpoints
from prior_fast.training.meter import MEASURED

# Dropout of BERT draws per process, so it can't be the same for one process and two.
# Adam divides by the root of a gradient's square, so where a gradient is rounding alone, rounding decides the whole
# step: small steps keep the two runs comparable.
SETTINGS = [
    "model.text.dropout=0",
    "model.sentence_decoder.dropout=0",
    "learning_rate=1e-5,1e-5,1e-5",
    "learning_rate_start=1e-5,1e-5,1e-5",
]


def losses(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("kind", *MEASURED)} for line in lines if line["kind"] == "train"
    ]


@pytest.mark.parametrize("stage_epochs", ["1,0,0", "0,1,0", "0,0,1"])
def test_two_processes_equal_one(
    stage_epochs: str, small_store: Path, small_settings: list[str], tmp_path: Path
) -> None:
    words = ["train", "--preset", "tiny", "--data", str(small_store), *small_settings, *SETTINGS]
    words.append(f"stage_epochs={stage_epochs}")
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "-m", "prior_fast.cli.main", *words, "--out", str(tmp_path / "two")],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 2
    # After an update Adam has made rounding larger, and a prototype on the edge may be read by another sentence.
    # Ten normalizations of two to sixteen channels in a row make rounding larger in the decoder too.
    images = [run[0].pop("image_reconstruction", 0.0) for run in (one, two)]
    assert images[1] == pytest.approx(images[0], rel=5e-4)
    assert two[0] == pytest.approx(one[0], rel=1e-5, abs=1e-5)
    start, _ = build_model(apply_overrides(preset("tiny"), small_settings).model, vocabulary(small_store), seed=0)
    first = start.state_dict()
    weights = [
        safetensors.torch.load_file(list_checkpoints(tmp_path / run / "checkpoints")[-1] / "model.safetensors")
        for run in ("one", "two")
    ]
    assert weights[0].keys() == weights[1].keys() == first.keys()
    # The bank starts from sentences, not from the weights that the model was built with.
    names = [name for name, _ in start.named_parameters() if not name.startswith("sentence_bank")]
    moved = sum((weights[0][name] - first[name]).abs().sum() for name in names)
    apart = sum((weights[0][name] - weights[1][name]).abs().sum() for name in names)
    assert moved > 0
    assert apart < 0.05 * moved


def vocabulary(data: Path) -> int:
    return PreparedDataset.open(data, "train").vocab_size

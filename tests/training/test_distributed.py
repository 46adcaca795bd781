"""Two gloo processes under torchrun take the steps that one process takes on the joined batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

from prior_fast.cli.main import main
from prior_fast.training.checkpoint import list_checkpoints

# Dropout of BERT draws per process, so it can't be the same for one process and two.
SETTINGS = ["model.text.dropout=0", "model.sentence_decoder.dropout=0"]


def losses(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("kind", "pairs_per_second")}
        for line in lines
        if line["kind"] == "train"
    ]


def test_two_processes_equal_one(small_store: Path, small_settings: list[str], tmp_path: Path) -> None:
    words = ["train", "--preset", "tiny", "--data", str(small_store), *small_settings, *SETTINGS]
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
    assert len(one) == len(two) == 6
    for a, b in zip(one, two):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-5)
    weights = [
        safetensors.torch.load_file(list_checkpoints(tmp_path / run / "checkpoints")[-1] / "model.safetensors")
        for run in ("one", "two")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name in weights[0]:
        # Adam divides by the root of a gradient's square, so where a gradient is rounding alone its sign decides.
        assert (weights[0][name].float() - weights[1][name].float()).abs().max() < 2e-2, name

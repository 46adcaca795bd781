"""Gloo processes take the same steps as one process on the joined batch."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch

from prior_fast.cli.main import main
from prior_fast.config import apply_overrides, preset
from prior_fast.data.batch_plan import LoaderConfig
from prior_fast.data.loader import TrainingLoader
from prior_fast.data.prepared_dataset import PreparedDataset
from prior_fast.model.build import build_model
from prior_fast.training.checkpoint import list_checkpoints
from prior_fast.training.meter import MEASURED
from tests.training.compiled_ranks import traced
from tests.training.forked import Forked, main_with_statistics, wait_for_all

# Dropout of BERT draws per process, so it can't be the same for one process and two.
# Adam divides by the root of a gradient's square, so if a gradient is only rounding, rounding decides the whole step:
# small steps keep the two runs comparable.
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


@pytest.fixture(scope="module")
def alone(
    small_store: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`alone(stage_epochs)` -> the run of one process."""
    runs: dict[str, Path] = {}

    def run(stage_epochs: str) -> Path:
        if stage_epochs not in runs:
            runs[stage_epochs] = tmp_path_factory.mktemp("alone") / "run"
            assert main([*words(small_store, small_settings, stage_epochs), "--out", str(runs[stage_epochs])]) == 0
        return runs[stage_epochs]

    return run


def words(data: Path, settings: list[str], stage_epochs: str) -> list[str]:
    own = [*settings, *SETTINGS, f"stage_epochs={stage_epochs}"]
    return ["train", "--preset", "tiny", "--data", str(data), *own]


@pytest.mark.parametrize(
    ("processes", "stage_epochs"), [(2, "1,0,0"), (2, "0,1,0"), (2, "0,0,1"), (4, "1,0,0"), (4, "0,0,1")]
)
def test_processes_equal_one(
    processes: int,
    stage_epochs: str,
    alone: Callable[[str], Path],
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
    fork_ranks: Callable[..., list[Forked]],
) -> None:
    assert len(set(tokens_of_ranks(small_store, processes))) > 1
    command = words(small_store, small_settings, stage_epochs)
    wait_for_all(fork_ranks(processes, [*command, "--out", str(tmp_path / "run")]))
    check_equal(alone(stage_epochs), tmp_path / "run", small_store, small_settings)


@pytest.mark.parametrize("stage_epochs", ["1,0,0", "0,0,1"])
def test_processes_that_a_run_starts_equal_one(
    stage_epochs: str, alone: Callable[[str], Path], small_store: Path, small_settings: list[str], tmp_path: Path
) -> None:
    command = words(small_store, small_settings, stage_epochs)
    assert main([*command, "--out", str(tmp_path / "run"), "processes=2"]) == 0
    check_equal(alone(stage_epochs), tmp_path / "run", small_store, small_settings)


def test_running_statistics_are_equal_on_all_ranks(
    small_store: Path, small_settings: list[str], tmp_path: Path, fork_ranks: Callable[..., list[Forked]]
) -> None:
    found = {}
    for name in ("true", "false"):
        command = [*words(small_store, small_settings, "0,0,1"), f"sync_batch_norm={name}"]
        ranks = fork_ranks(2, [*command, "--out", str(tmp_path / name)], main=main_with_statistics)
        wait_for_all(ranks)
        said = [line for rank in ranks for line in rank.stdout.splitlines() if line.startswith("statistics")]
        assert len(said) == 2
        found[name] = set(said)
    assert len(found["true"]) == 1 and len(found["false"]) == 2


@pytest.mark.slow
def test_processes_of_torchrun_equal_one(
    alone: Callable[[str], Path], small_store: Path, small_settings: list[str], tmp_path: Path
) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launcher += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    run = ["-m", "prior_fast.cli.main", *words(small_store, small_settings, "0,0,1"), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, *run], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    check_equal(alone("0,0,1"), tmp_path / "run", small_store, small_settings)


def check_equal(run: Path, other: Path, data: Path, settings: list[str]) -> None:
    """Fail unless two runs have the same losses and weights, up to rounding."""
    one, two = losses(run), losses(other)
    assert len(one) == len(two) == 2
    # After an update Adam has amplified rounding, and a sentence near a boundary may read another prototype.
    # Ten consecutive normalizations of two to sixteen channels also amplify rounding in the decoder.
    images = [run[0].pop("image_reconstruction", 0.0) for run in (one, two)]
    assert images[1] == pytest.approx(images[0], rel=5e-4)
    assert two[0] == pytest.approx(one[0], rel=1e-5, abs=1e-5)
    start, _ = build_model(apply_overrides(preset("tiny"), settings).model, vocabulary(data), seed=0)
    first = start.state_dict()
    weights = [
        safetensors.torch.load_file(list_checkpoints(folder / "checkpoints")[-1] / "model.safetensors")
        for folder in (run, other)
    ]
    assert weights[0].keys() == weights[1].keys() == first.keys()
    # The bank starts from sentences, not from the weights that the model was built with.
    buffers = {name for name, _ in start.named_buffers()}
    names = [name for name in first if name not in buffers and not name.startswith("sentence_bank")]
    moved = sum((weights[0][name] - first[name]).abs().sum() for name in names)
    apart = sum((weights[0][name] - weights[1][name]).abs().sum() for name in names)
    assert moved > 0
    assert apart < 0.05 * moved


@pytest.mark.slow
def test_processes_compile_one_graph_each(
    small_store: Path, small_settings: list[str], tmp_path: Path, fork_ranks: Callable[..., list[Forked]]
) -> None:
    # DistributedDataParallel cuts the graph of a model of more than 1 MiB, its first bucket of gradients.
    settings = [*small_settings, "model.decoder_width=0"]
    command = words(small_store, settings, "0,0,1")
    wait_for_all(fork_ranks(2, [*command, "compile=off", "--out", str(tmp_path / "plain")]))
    ranks = fork_ranks(2, [*command, "compile=on", "--out", str(tmp_path / "compiled")], main=traced)
    wait_for_all(ranks)
    assert all("graphs 1 breaks 0" in rank.stdout for rank in ranks), [rank.stdout for rank in ranks]
    check_equal(tmp_path / "plain", tmp_path / "compiled", small_store, settings)


def test_batch_norms_may_keep_to_their_process(
    small_store: Path, small_settings: list[str], tmp_path: Path, fork_ranks: Callable[..., list[Forked]]
) -> None:
    command = words(small_store, small_settings, "1,0,0")
    for name in ("true", "false"):
        wait_for_all(fork_ranks(2, [*command, f"sync_batch_norm={name}", "--out", str(tmp_path / name)]))
    joined, own = losses(tmp_path / "true"), losses(tmp_path / "false")
    assert len(joined) == len(own) == 2
    assert joined[0]["global_alignment"] != pytest.approx(own[0]["global_alignment"], rel=1e-4)


def tokens_of_ranks(data: Path, ranks: int) -> list[int]:
    """Tokens of each rank's part of the first batch."""
    dataset = PreparedDataset.open(data, "train")
    loaders = (
        TrainingLoader(dataset, LoaderConfig(preset("tiny").data, 8, seed=0, rank=rank, ranks=ranks))
        for rank in range(ranks)
    )
    return [len(next(iter(loader.epoch(0))).token_ids) for loader in loaders]


def vocabulary(data: Path) -> int:
    return PreparedDataset.open(data, "train").vocab_size

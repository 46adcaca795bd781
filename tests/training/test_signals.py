"""SIGTERM and SIGUSR1 end a run after the step under way, and what was stopped ends where an unbroken run does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from prior_fast.cli.main import main
from prior_fast.training.checkpoint import list_checkpoints
from prior_fast.training.signals import EXIT_CODE, SIGNALS, StopSignals

# Steps enough for a signal to come between them, and few for those that are not stopped.
MANY = ["stage_epochs=5,0,0", "max_steps_per_stage=15", "model.bank.init=gaussian"]


def words(data: Path, out: Path, *settings: str) -> list[str]:
    return ["train", "--preset", "tiny", "--data", str(data), "--out", str(out), "--resume", "auto", *settings]


def start(command: list[str], **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "prior_fast.cli.main", *command],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def wait_for_a_step(out: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200
    log = out / "log.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.01)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(list_checkpoints(out / "checkpoints")[-1] / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(small_store: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    # --resume auto on a folder without a run starts one: a scheduler that requeues gives the same words again.
    assert main(words(small_store, out, *small_settings, *MANY)) == 0
    return out


@pytest.mark.parametrize(
    ("number", "whole_group", "settings"),
    [
        (signal.SIGUSR1, False, []),
        # Schedulers signal every process of a job, the loader's too.
        (signal.SIGTERM, True, ["data.source=workers", "data.workers=1"]),
    ],
)
def test_a_signal_ends_a_run_that_can_go_on(
    number: signal.Signals,
    whole_group: bool,
    settings: list[str],
    unbroken: Path,
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    command = words(small_store, out, *small_settings, *MANY, *settings)
    process = start(command)
    wait_for_a_step(out, process)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    said, errors = process.communicate(timeout=100)
    assert process.returncode == EXIT_CODE == 75, errors
    assert f"stopped by {number.name} after step" in said and "--resume auto goes on" in said
    assert "Traceback" not in errors
    metrics = json.loads((out / "metrics.json").read_text())
    assert not metrics["finished"]
    assert list_checkpoints(out / "checkpoints")[-1].name == f"step-{metrics['total_steps']:08d}"
    assert main(command) == 0
    assert json.loads((out / "metrics.json").read_text())["finished"]
    expected, got = weights(unbroken), weights(out)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_two_ranks_stop_at_the_same_step(small_store: Path, small_settings: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    command = words(small_store, out, *small_settings, *MANY)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = [start(command, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(2)]
    wait_for_a_step(out, ranks[0])
    # The one that writes the checkpoint gets none.
    ranks[1].send_signal(signal.SIGUSR1)
    ended = [rank.communicate(timeout=100) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [75, 75], ended
    assert "stopped by a signal to another process after step" in ended[0][0]
    assert ended[1][0] == ""
    steps = json.loads((out / "metrics.json").read_text())["total_steps"]
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == [f"step-{steps:08d}"]


def test_a_lost_worker_is_replaced_and_the_run_ends_as_if_unbroken(
    small_store: Path, small_settings: list[str], tmp_path: Path
) -> None:
    settings = [*small_settings, *MANY, "checkpoint_every=3", "model.text.dropout=0"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}

    def launch(out: Path, *more: str) -> subprocess.Popen:
        command = [*launcher, *more, "-m", "prior_fast.cli.main", *words(small_store, out, *settings)]
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    plain = launch(tmp_path / "plain")
    ended = plain.communicate(timeout=200)
    assert plain.returncode == 0, ended
    broken, out = launch(tmp_path / "broken", "--max-restarts", "1"), tmp_path / "broken"
    deadline = time.monotonic() + 200
    while not list_checkpoints(out / "checkpoints"):
        assert broken.poll() is None and time.monotonic() < deadline, broken.communicate()
        time.sleep(0.01)
    workers = [child for child in psutil.Process(broken.pid).children() if "prior_fast.cli.main" in child.cmdline()]
    assert len(workers) == 2
    workers[1].kill()
    _, errors = broken.communicate(timeout=300)
    assert broken.returncode == 0, errors
    assert json.loads((out / "metrics.json").read_text())["finished"]
    expected, got = weights(tmp_path / "plain"), weights(out)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_handlers_are_put_back_where_no_signal_came() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals() as signals:
        assert not signals.asked()
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(SIGNALS)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_once_and_later_ones_are_not_deadly(number: signal.Signals) -> None:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with StopSignals() as signals:
            assert signal.getsignal(number) != before[number]  # else the next line would end the tests
            os.kill(os.getpid(), number)
            assert signals.asked() and signals.cause == number.name
        for other in SIGNALS:
            os.kill(os.getpid(), other)
    finally:
        for other, handler in before.items():
            signal.signal(other, handler)

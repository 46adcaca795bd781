"""A run on a CPU starts the processes that share its batches, and none of them outlives it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from prior_fast.cli.main import main
from prior_fast.config import apply_overrides, preset
from prior_fast.errors import RunError, UsageError
from prior_fast.training import local_processes
from prior_fast.training.checkpoint import list_checkpoints
from prior_fast.training.job import Job
from prior_fast.training.local_processes import LocalProcesses, local_threads, process_count
from prior_fast.training.signals import EXIT_CODE
from tests.training.forked import Forked, main_of_little_patience

ENDLESS = ["stage_epochs=1000000,1,1", "max_steps_per_stage=0"]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def words(data: Path, out: Path, *settings: str) -> list[str]:
    return ["train", "--preset", "tiny", "--data", str(data), "--out", str(out), "processes=2", *settings]


def wait_for_a_step(out: Path, process: Forked) -> psutil.Process:
    """Wait for the first line of the log; returns the process that the run has started."""
    log = out / "log.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert process.running(), process.stderr
        time.sleep(0.01)
    return worker_of(process)


def worker_of(process: Forked) -> psutil.Process:
    while True:
        children = psutil.Process(process.pid).children()
        # For a moment a new process still has the command line of the one that starts it.
        if children and "prior_fast.training.worker" in children[0].cmdline():
            assert len(children) == 1
            return children[0]
        assert process.running(), process.stderr
        time.sleep(0.01)


@pytest.fixture
def start(small_store: Path, small_settings: list[str], tmp_path: Path, fork: Callable[..., Forked]) -> Callable:
    """`start()` -> a run of two processes without an end, in `tmp_path / "run"`."""
    return lambda: fork(words(small_store, tmp_path / "run", *small_settings, *ENDLESS))


@pytest.mark.parametrize(
    ("settings", "threads", "cores", "found"),
    [
        ([], 1, 8, 1),
        ([], 2, 8, 1),
        ([], 16, 3, 1),
        ([], 3, 8, 1),
        ([], 4, 8, 4),
        ([], 16, 16, 4),
        (["batch_size=9"], 4, 4, 3),
        (["batch_size=7"], 4, 4, 1),
        (["processes=1"], 4, 4, 1),
        (["processes=8"], 1, 1, 8),
        # Each process would use its own statistics: another model than that of one process.
        (["sync_batch_norm=false"], 2, 2, 1),
        (["sync_batch_norm=false", "processes=2"], 2, 2, 2),
    ],
)
def test_number_of_processes(
    settings: list[str], threads: int, cores: int, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(local_processes, "usable_cores", lambda: cores)
    config = apply_overrides(preset("tiny"), ["batch_size=64", *settings])
    assert process_count(config, CPU) == found
    # On a GPU it is one, and under torchrun each process is one of torchrun's.
    for device, world in ((GPU, None), (CPU, "1"), (CPU, "2")):
        if world:
            monkeypatch.setenv("WORLD_SIZE", world)
        if config.processes > 1:
            with pytest.raises(UsageError, match=f"processes={config.processes} does not go with .*torchrun"):
                process_count(config, device)
        else:
            assert process_count(config, device) == 1


def test_processes_share_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        for count, threads in ((1, 4), (2, 2), (3, 1), (8, 1)):
            with local_threads(count):
                assert torch.get_num_threads() == threads
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_a_batch_must_be_shared_evenly(
    small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(words(small_store, tmp_path / "run", *small_settings, "processes=3")) == 2
    assert "processes=3: must be a divisor of batch_size=8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("echo warning >&2; echo no luck >&2; exit 2", UsageError, "^no luck$"),
        ("echo no luck >&2; exit 1", RunError, "^no luck$"),
        ("echo no luck >&2; exit 70", RunError, "process 2 of 2 failed: no luck; --resume auto"),
        ("exit 3", RunError, "process 2 of 2 failed: it printed nothing; --resume auto"),
        ("kill -9 $$", RunError, "process 2 of 2 was ended by SIGKILL .*processes=1 needs less.*--resume auto"),
    ],
)
def test_what_ended_another_process_is_told(
    script: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = tmp_path / "python"
    shell.write_text(f"#!/bin/sh\n{script}\n")
    shell.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(shell))
    job = Job(preset("tiny"), Path("data"), Path("out"))
    with pytest.raises(error, match=message), LocalProcesses(job, 2) as others:
        others.meet()
    # A lost connection is no cause, but what it lost is.
    with pytest.raises(error, match=message), LocalProcesses(job, 2):
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(UsageError, match="mine"), LocalProcesses(job, 2):
        raise UsageError("mine")


def test_a_job_is_read_as_it_was_written() -> None:
    config = apply_overrides(preset("paper"), ["learning_rate=1e-7,0.3,2", "seed=5", "data.jpegs=a b"])
    for checkpoint in (None, Path("run/step-00000001")):
        job = Job(config, Path("data"), Path("out\n"), checkpoint, 7, "digest")
        assert "\n" not in job.to_json() and Job.from_json(job.to_json()) == job


def test_a_damaged_dataset_is_told_once(
    small_store: Path, small_settings: list[str], tmp_path: Path, fork: Callable[..., Forked]
) -> None:
    shutil.copytree(small_store, tmp_path / "prepared")
    (tmp_path / "prepared/tokens.npy").unlink()
    process = fork(words(tmp_path / "prepared", tmp_path / "run", *small_settings))
    assert process.wait() == 2
    assert process.stdout == "" and process.stderr.count("\n") == 1 and "tokens.npy" in process.stderr
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_is_told_once(
    small_store: Path, small_settings: list[str], tmp_path: Path, fork: Callable[..., Forked]
) -> None:
    process = fork(words(small_store, tmp_path / "run", *small_settings, "loss.local_text=1e39"))
    assert process.wait() == 1
    assert process.stderr.splitlines()[-1].startswith("prior-fast: stage 1, step 1: the norm of the gradient is ")
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("early", [True, False])
def test_a_killed_process_ends_the_run(early: bool, start: Callable[[], Forked], tmp_path: Path) -> None:
    process = start()
    other = worker_of(process) if early else wait_for_a_step(tmp_path / "run", process)
    other.kill()
    assert process.wait() == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith("prior-fast: process 2 of 2 was ended by SIGKILL") and "--resume auto" in last
    assert "Traceback" not in process.stderr


def test_a_process_that_does_not_come_is_not_awaited_for_ever(
    small_store: Path, small_settings: list[str], tmp_path: Path, fork: Callable[..., Forked]
) -> None:
    process = fork(words(small_store, tmp_path / "run", *small_settings, *ENDLESS), main=main_of_little_patience)
    other = worker_of(process)
    other.suspend()
    assert process.wait() == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith("prior-fast: process 2 of 2 has not answered for 1 s") and "--resume auto" in last
    assert "Traceback" not in process.stderr
    other.wait()


def test_the_others_end_with_a_killed_run(start: Callable[[], Forked], tmp_path: Path) -> None:
    process = start()
    other = wait_for_a_step(tmp_path / "run", process)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    other.wait()


@pytest.mark.parametrize("early", [True, False])
def test_an_interrupt_ends_all(early: bool, start: Callable[[], Forked], tmp_path: Path) -> None:
    process = start()
    other = worker_of(process) if early else wait_for_a_step(tmp_path / "run", process)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130
    assert "Traceback" not in process.stderr
    if early:
        assert process.stderr.splitlines()[-1] == "prior-fast: interrupted"
    else:
        assert "stopped by Ctrl-C after step" in process.stdout and list_checkpoints(tmp_path / "run" / "checkpoints")
    other.wait()


@pytest.mark.parametrize("whole_job", [True, False])
def test_a_signal_stops_all_and_the_run_goes_on_bit_for_bit(
    whole_job: bool,
    start: Callable[[], Forked],
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    out = tmp_path / "run"
    process = start()
    other = wait_for_a_step(out, process)
    # Each process decides at the same step, whichever of them gets the signal.
    if whole_job:
        os.kill(process.pid, signal.SIGTERM)
    other.send_signal(signal.SIGTERM)
    assert process.wait() == EXIT_CODE, process.stderr
    assert "after step" in process.stdout and "Traceback" not in process.stderr
    other.wait()
    steps = json.loads((out / "metrics.json").read_text())["total_steps"]
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == [f"step-{steps:08d}"]
    again = ["train", "--data", str(small_store), "--out", str(out), "--resume", "auto", "--stop-after", str(steps + 2)]
    assert main(again) == 0
    plain = tmp_path / "plain"
    command = words(small_store, plain, *small_settings, *ENDLESS)
    assert main([*command, "--stop-after", str(steps + 2)]) == 0
    assert capfd.readouterr().out.count("on 2 x cpu") == 2
    expected, got = weights(plain), weights(out)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(list_checkpoints(out / "checkpoints")[-1] / "model.safetensors")


SCRIPT = """
from pathlib import Path
from prior_fast.config import apply_overrides, preset
from prior_fast.training.pretrain import train
print("started", flush=True)
config = apply_overrides(preset("tiny"), {settings!r})
print("stopped", train(config, Path({data!r}), Path("run"), None, 2), flush=True)
"""


def test_a_script_needs_no_guard(small_store: Path, small_settings: list[str], tmp_path: Path) -> None:
    """The other processes do not run the script; it may have any name, also that of a module they import."""
    settings = [*small_settings, "processes=2"]
    (tmp_path / "script.py").write_text(SCRIPT.format(settings=settings, data=str(small_store)))
    (tmp_path / "torch.py").write_text("raise SystemExit('the wrong torch')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "started" and lines[-1] == "stopped 0" and done.stdout.count("started") == 1
    assert json.loads((tmp_path / "run/metrics.json").read_text())["total_steps"] == 2

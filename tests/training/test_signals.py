"""SIGTERM and SIGUSR1 end a run after the current step, and a resumed run ends like an uninterrupted one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch

from prior_fast.cli.main import main
from prior_fast.training.checkpoint import Position, list_checkpoints
from prior_fast.training.log import RunLog
from prior_fast.training.signals import EXIT_CODE, INTERRUPT_CODE, SIGNALS, StopNow, StopSignals, uninterrupted
from tests.training.forked import Forked, main_stuck, main_stuck_in_code, main_until_stopped, wait_for_all

# More than a run takes before it waits for a signal.
MANY = ["stage_epochs=5,0,0", "max_steps_per_stage=15", "model.bank.init=gaussian"]


def words(data: Path, out: Path, *settings: str) -> list[str]:
    return ["train", "--preset", "tiny", "--data", str(data), "--out", str(out), "--resume", "auto", *settings]


def wait_for_a_step(out: Path, process: Forked) -> None:
    log = out / "log.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert process.running(), process.stderr
        time.sleep(0.01)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(list_checkpoints(out / "checkpoints")[-1] / "model.safetensors")


@pytest.fixture(scope="module")
def unbroken(small_store: Path, small_settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "run"
    # --resume auto on a folder without a run starts one: a scheduler requeues with the same command line.
    assert main(words(small_store, out, *small_settings, *MANY)) == 0
    return out


@pytest.mark.parametrize(
    ("number", "whole_group", "settings"),
    [
        (signal.SIGUSR1, False, []),
        # Schedulers signal every process of a job, including the loader's.
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
    fork: Callable[..., Forked],
) -> None:
    out = tmp_path / "run"
    command = words(small_store, out, *small_settings, *MANY, *settings)
    process = fork(command, main=main_until_stopped)
    wait_for_a_step(out, process)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    assert process.wait() == EXIT_CODE == 75, process.stderr
    assert f"stopped by {number.name} after step" in process.stdout and "--resume auto goes on" in process.stdout
    assert "Traceback" not in process.stderr
    metrics = json.loads((out / "metrics.json").read_text())
    assert not metrics["finished"]
    assert list_checkpoints(out / "checkpoints")[-1].name == f"step-{metrics['total_steps']:08d}"
    assert main(command) == 0
    assert json.loads((out / "metrics.json").read_text())["finished"]
    expected, got = weights(unbroken), weights(out)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_ctrl_c_ends_a_run_with_a_checkpoint(
    unbroken: Path, small_store: Path, small_settings: list[str], tmp_path: Path, fork: Callable[..., Forked]
) -> None:
    out = tmp_path / "run"
    command = words(small_store, out, *small_settings, *MANY)
    process = fork(command, main=main_until_stopped)
    wait_for_a_step(out, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait() == INTERRUPT_CODE == 130, process.stderr
    assert "press Ctrl-C again to stop at once" in process.stderr and "Traceback" not in process.stderr
    assert "stopped by Ctrl-C after step" in process.stdout and "--resume auto goes on" in process.stdout
    assert main(command) == 0
    expected, got = weights(unbroken), weights(out)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("hangs", [False, True])
def test_a_signal_during_the_first_step_ends_the_run_at_once(
    number: signal.Signals,
    code: int,
    hangs: bool,
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
    fork: Callable[..., Forked],
) -> None:
    """The first step compiles for minutes, and there is nothing to save. `hangs`: in code that handles no signals."""
    out = tmp_path / "run"
    process = fork(words(small_store, out, *small_settings, *MANY), main=main_stuck_in_code if hangs else main_stuck)
    while not (tmp_path / "run" / "stuck").exists():
        assert process.running(), process.stderr
        time.sleep(0.01)
    os.kill(process.pid, number)
    assert process.wait() == code, process.stderr
    assert "Traceback" not in process.stderr
    if not hangs:
        assert not (out / ".lock").exists() and f"(exit code {code})" in process.stdout
    assert list_checkpoints(out / "checkpoints") == []
    assert main(words(small_store, out)) == 0
    assert json.loads((out / "metrics.json").read_text())["finished"]


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_is_raised() -> None:
    with StopSignals(speaks=False) as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.asked() and signals.exit_code == 130
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_interrupts_after_the_end_are_ignored() -> None:
    with StopSignals(speaks=False) as signals:
        signal.raise_signal(signal.SIGINT)
        signals.over()
        signal.raise_signal(signal.SIGINT)
        assert signals.asked() and signals.exit_code == 130
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_process_that_ignores_interrupts_goes_on_to_do_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signal.raise_signal(signal.SIGINT)
            assert not signals.asked()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_signal_that_came_before_is_acted_on_where_nothing_is_lost() -> None:
    with StopSignals(speaks=False) as signals:
        with signals.at_once():
            pass
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(StopNow), signals.at_once():
            pytest.fail("the block was entered")
        assert signals.agreed and not signal.pthread_sigmask(signal.SIG_BLOCK, []).isdisjoint(SIGNALS)


def test_two_ranks_stop_at_the_same_step(
    small_store: Path, small_settings: list[str], tmp_path: Path, fork_ranks: Callable[..., list[Forked]]
) -> None:
    out = tmp_path / "run"
    ranks = fork_ranks(2, words(small_store, out, *small_settings, *MANY), main=main_until_stopped)
    wait_for_a_step(out, ranks[0])
    # The rank that writes the checkpoint gets no signal.
    os.kill(ranks[1].pid, signal.SIGUSR1)
    wait_for_all(ranks, EXIT_CODE)
    assert "stopped by a signal to another process after step" in ranks[0].stdout
    assert ranks[1].stdout == ""
    steps = json.loads((out / "metrics.json").read_text())["total_steps"]
    assert [path.name for path in list_checkpoints(out / "checkpoints")] == [f"step-{steps:08d}"]


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_the_run_ends_as_if_unbroken(
    small_store: Path, small_settings: list[str], tmp_path: Path, fork_ranks: Callable[..., list[Forked]]
) -> None:
    # Enough steps that the first checkpoint is seen long before the last step.
    many = ["stage_epochs=15,0,0", "max_steps_per_stage=60", "model.bank.init=gaussian"]
    settings = [*small_settings, *many, "checkpoint_every=3", "model.text.dropout=0"]
    wait_for_all(fork_ranks(2, words(small_store, tmp_path / "plain", *settings)))
    out = tmp_path / "broken"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    launcher += ["--max-restarts", "1", "-m", "prior_fast.cli.main"]
    broken = subprocess.Popen(
        [*launcher, *words(small_store, out, *settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while not list_checkpoints(out / "checkpoints"):
            assert broken.poll() is None
            time.sleep(0.01)
        workers = [child for child in psutil.Process(broken.pid).children() if "prior_fast.cli.main" in child.cmdline()]
        assert len(workers) == 2
        workers[1].kill()
        _, errors = broken.communicate()
    finally:
        if broken.poll() is None:
            os.killpg(broken.pid, signal.SIGKILL)
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
            # Another thread may receive the signal a moment later.
            while not signals.asked():
                time.sleep(0.001)
            assert signals.cause == number.name
        for other in SIGNALS:
            signals.received = None
            os.kill(os.getpid(), other)
            while signals.received is not other:
                time.sleep(0.001)
    finally:
        for other, handler in before.items():
            signal.signal(other, handler)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Makes Ctrl-C raise, as in a terminal: tests in the background of a shell inherit that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_comes_after_a_block_that_is_to_be_whole() -> None:
    done = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"] and signal.getsignal(signal.SIGINT) is before
    with uninterrupted():
        done.append("again")
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_error_in_such_a_block_is_told_and_the_interrupts_are_as_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="full"), uninterrupted():
        raise OSError("full")
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_such_a_block_is_any_block() -> None:
    done = []

    def run() -> None:
        with uninterrupted():
            done.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [1]


@pytest.mark.usefixtures("interruptible")
def test_a_line_of_the_log_is_whole_when_it_is_interrupted(tmp_path: Path) -> None:
    """The interrupt comes when TensorBoard gets the first value; all values are written, and closing does not wait."""
    log = RunLog(tmp_path, Position())
    handed = []
    hand_over = log.board.add_scalar

    def interrupted(name: str, *rest: float) -> None:
        if not handed:
            signal.raise_signal(signal.SIGINT)
        handed.append(name)
        hand_over(name, *rest)

    log.board.add_scalar = interrupted
    with pytest.raises(KeyboardInterrupt):
        log.write("train", Position(1, 1, 1), {"loss": 1.0, "global_alignment": 2.0})
    log.close()
    assert handed == ["stage1/train/loss", "stage1/train/global_alignment"]
    assert json.loads((tmp_path / "log.jsonl").read_text())["global_alignment"] == 2.0

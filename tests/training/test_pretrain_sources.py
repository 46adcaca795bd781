"""Training from each image source: the same run, a damaged dataset, and an interrupted run."""

import importlib.util
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from prior_fast.cli.main import main
from tests.training.forked import Forked, main_stuck_later

SOURCES = (("data.workers=0",), ("data.workers=1",), ("data.source=workers", "data.workers=2"), ("data.source=dali",))


def words(data: Path, out: Path, settings: list[str], source: tuple[str, ...]) -> list[str]:
    if "data.source=dali" in source and importlib.util.find_spec("nvidia.dali") is None:
        pytest.skip("NVIDIA DALI is not installed")
    return ["train", "--preset", "tiny", "--data", str(data), "--out", str(out), *settings, *source]


def first_losses(out: Path) -> dict[str, float]:
    return next(line for line in map(json.loads, (out / "log.jsonl").read_text().splitlines()) if line["step"] == 1)


@pytest.mark.parametrize("source", SOURCES[1:])
def test_a_run_starts_alike_from_any_source(
    source: tuple[str, ...], small_store: Path, small_settings: list[str], tmp_path: Path
) -> None:
    more = ["precision=fp32", "max_steps_per_stage=1", "log_every=1"]
    for name, chosen in (("one", SOURCES[0]), ("other", source)):
        assert main(words(small_store, tmp_path / name, [*small_settings, *more], chosen)) == 0
    one, other = first_losses(tmp_path / "one"), first_losses(tmp_path / "other")
    for name in ("loss", "global_alignment", "local_image", "local_text"):
        assert other[name] == pytest.approx(one[name], rel=2e-3, abs=2e-3)


def test_buckets_leave_the_losses_alone(small_store: Path, small_settings: list[str], tmp_path: Path) -> None:
    more = ["precision=fp32", "max_steps_per_stage=1", "log_every=1"]
    for name, bucket in (("one", "0"), ("other", "256")):
        settings = [*small_settings, *more, f"data.token_bucket={bucket}"]
        assert main(words(small_store, tmp_path / name, settings, SOURCES[0])) == 0
    assert first_losses(tmp_path / "other")["loss"] == pytest.approx(first_losses(tmp_path / "one")["loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["images.npy", "tokens.npy", "manifest.parquet"])
def test_a_flipped_byte_is_found_before_training(
    name: str, small_store: Path, small_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(small_store, tmp_path / "prepared")
    path = tmp_path / "prepared" / name
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    assert main(words(tmp_path / "prepared", tmp_path / "run", small_settings, ())) == 2
    # A damaged manifest is read before anything is compared.
    assert f"{name} {'can' if name == 'manifest.parquet' else 'was changed'}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("source", SOURCES)
def test_an_interrupt_ends_it_after_the_step(
    source: tuple[str, ...],
    small_store: Path,
    small_settings: list[str],
    tmp_path: Path,
    fork: Callable[..., Forked],
) -> None:
    log = tmp_path / "run/log.jsonl"
    endless = [*small_settings, "stage_epochs=1000000,1,1", "max_steps_per_stage=0", "log_every=20"]
    # A separate process group: a terminal's Ctrl-C also reaches the workers.
    process = fork(words(small_store, tmp_path / "run", endless, source))
    while not (log.exists() and log.stat().st_size):
        assert process.running(), process.stderr
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    written = log.read_text().count("\n")
    assert process.wait() == 130
    assert "prior-fast: stopping after this step; press Ctrl-C again to stop at once" in process.stderr
    assert "Traceback" not in process.stderr or "data.source=workers" in source
    assert "stopped by Ctrl-C after step" in process.stdout
    # The current step still ends, and its line is written.
    assert log.read_text().count("\n") <= written + 2


@pytest.mark.parametrize("source", SOURCES[:1])
def test_a_second_interrupt_ends_it_at_once(
    source: tuple[str, ...], small_store: Path, small_settings: list[str], tmp_path: Path, fork: Callable[..., Forked]
) -> None:
    process = fork(words(small_store, tmp_path / "run", small_settings, source), main=main_stuck_later)
    while not (tmp_path / "run" / "stuck").exists():
        assert process.running(), process.stderr
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    while "press Ctrl-C again" not in process.stderr:
        assert process.running()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130
    assert process.stderr.splitlines()[-1] == "prior-fast: interrupted"

"""The scripts for a GPU machine: each part keeps its time limit, results are packed after each part, and SIGTERM loses
nothing.

PYTHON is a fake program of the test, which records its arguments and runs `DO`.
"""

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prior_fast import ops
from prior_fast.bench.gpu import sanitize

SCRIPTS = Path(__file__).resolve().parents[2] / "bench/gpu"
# With --out DIR it writes a file there, as every command does.
FAKE = """#!/usr/bin/env bash
words="$*"
echo "$words" >> "$ASKED"
echo "said of $words"
while [ $# -gt 1 ]; do
    if [ "$1" = --out ]; then mkdir -p "$2" && echo "$words" > "$2/result.json"; fi
    shift
done
for rule in $DO; do
    case "$words" in *${rule%%=*}*)
        case ${rule##*=} in
            fail) exit 1 ;;
            hang) touch "$ASKED.hangs"; sleep 1000 ;;
        esac ;;
    esac
done
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a script with results in tmp_path/out; the fake program runs `do`, other names are its variables."""
    fake = tmp_path / "python"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    (tmp_path / "asked").touch()

    def run(name: str, do: str = "", **variables: str) -> subprocess.Popen[str]:
        own = {"PYTHON": str(fake), "WORK": str(tmp_path / "work"), "CARRY": str(tmp_path / "carry"), "DEVICE": "cpu"}
        environment = {**os.environ, **own, "ASKED": str(tmp_path / "asked"), "DO": do, **variables}
        command = ["bash", str(SCRIPTS / name), str(tmp_path / "out")]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    return run


def packed(path: Path) -> dict[str, str]:
    """The files of an archive and their contents."""
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read().decode() for m in archive.getmembers() if m.isfile()}  # type: ignore[union-attr]


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("first_light", ["build", "doctor", "tests", "phantom", "prepare", "uncompiled", "compiled"]),
        ("speed", ["timed", "steps-3", "convolutions", "ladder-3", "as-chosen"]),
        ("breadth", ["kernels-sigmoid_attention", "kernels-rotate_images", "loader", "steps-1", "steps-2"]),
    ],
)
def test_a_script_leaves_one_archive_with_a_log_of_each_part(start, script: str, parts: list[str], tmp_path: Path):
    process = start(f"{script}.sh")
    said = process.communicate()[0]
    assert process.returncode == 0, said
    name = script.replace("_", "-")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{name}.tgz"]
    files = packed(tmp_path / "out" / f"{name}.tgz")
    summary = files[f"{name}/summary.txt"]
    for part in parts:
        assert "said of" in files[f"{name}/{part}.log"]
        assert f"{part}: exit 0" in summary
    assert "all parts ended well" in summary
    assert set(summary.splitlines()) <= set(said.splitlines())


def test_each_setting_is_measured_beside_the_default(start, tmp_path: Path) -> None:
    process = start("settings.sh", SETTINGS="precision=fp32 optimizer_kernel=torch,upsampled_conv=auto")
    said = process.communicate()[0]
    assert process.returncode == 0, said
    asked = [line.split("device=cpu")[1].split() for line in (tmp_path / "asked").read_text().splitlines()]
    assert asked == [[], ["precision=fp32"], ["optimizer_kernel=torch", "upsampled_conv=auto"]]
    files = packed(tmp_path / "out/settings.tgz")
    results = [name for name in files if name.endswith("result.json")]
    assert len(results) == 3 and "settings/default/result.json" in results


@pytest.mark.parametrize("setting", ["optimizer_kernel", "upsampled_conv", "residual", "bank.precision"])
def test_settings_without_a_figure_are_measured(setting: str, start, tmp_path: Path) -> None:
    process = start("settings.sh", do=f"{setting}=fail")
    said = process.communicate()[0]
    assert process.returncode == 1 and said.count("exit 1") == 1 and said.count("exit 0") == 4, said


def test_what_fails_is_said_and_does_not_stop_the_others(start, tmp_path: Path) -> None:
    process = start("speed.sh", do="convolutions=fail")
    said = process.communicate()[0]
    assert process.returncode == 1
    assert "convolutions: exit 1" in said and "ladder-3: exit 0" in said and "a part failed" in said
    assert "speed/ladder-3/result.json" in packed(tmp_path / "out/speed.tgz")


@pytest.mark.slow
def test_a_part_that_hangs_is_ended_and_what_has_no_time_left_is_left_out(start, tmp_path: Path) -> None:
    # A part starts if 5 seconds are left: on a busy machine, the parts before it may take 25 seconds.
    process = start("speed.sh", do="timed=hang", BUDGET="30")
    said = process.communicate()[0]
    assert process.returncode == 1
    assert "timed: exit 124" in said and "ladder-3: left out, the time is used up" in said
    assert "said of" in packed(tmp_path / "out/speed.tgz")["speed/timed.log"]


@pytest.mark.parametrize("which", ["speed.sh", "all.sh"])
def test_on_term_what_is_there_is_packed(start, which: str, tmp_path: Path) -> None:
    process = start(which, do="convolutions=hang")
    wait_for(tmp_path / "asked.hangs", process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == 143, said
    files = packed(tmp_path / "out/speed.tgz")
    assert "speed/timed/result.json" in files and "said of" in files["speed/convolutions.log"]
    assert "stopped by a signal" in files["speed/summary.txt"]
    assert "ladder-3" not in (tmp_path / "asked").read_text()
    if which == "all.sh":
        with tarfile.open(tmp_path / "out/prior-fast-gpu.tar") as archive:
            assert {"first-light.tgz", "speed.tgz"} <= {*archive.getnames()}


def test_the_archive_is_there_before_the_end(start, tmp_path: Path) -> None:
    """A machine may disappear without a signal."""
    process = start("speed.sh", do="ladder-3=hang")
    wait_for(tmp_path / "asked.hangs", process)
    files = packed(tmp_path / "out/speed.tgz")
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert "speed/convolutions/result.json" in files and "convolutions: exit 0" in files["speed/summary.txt"]


def test_the_whole_half_hour_is_one_archive(start, tmp_path: Path) -> None:
    process = start("all.sh", do="doctor=fail")
    said = process.communicate()[0]
    assert process.returncode == 1, said
    with tarfile.open(tmp_path / "out/prior-fast-gpu.tar") as archive:
        assert archive.getnames() == ["first-light.tgz", "speed.tgz", "breadth.tgz"]


def test_a_folder_for_results_is_where_the_caller_is(tmp_path: Path) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    environment = {**os.environ, "PYTHON": "true", "WORK": str(tmp_path / "work"), "DEVICE": "cpu"}
    subprocess.run(["bash", str(SCRIPTS / "speed.sh"), "some/out"], cwd=here, env=environment, capture_output=True)
    assert (here / "some/out/speed.tgz").is_file()


def test_data_is_made_once_and_checkpoints_are_not_kept(start, tmp_path: Path) -> None:
    (tmp_path / "work/prepared").mkdir(parents=True)
    (tmp_path / "work/prepared/dataset.json").touch()
    process = start("first_light.sh")
    process.communicate()
    asked = (tmp_path / "asked").read_text()
    assert "phantom" not in asked and str(tmp_path / "work/prepared") in asked


def test_files_too_large_to_come_back_stay_out_of_the_archive(start, tmp_path: Path) -> None:
    large = tmp_path / "carry"
    large.mkdir()
    process = start("speed.sh", do="ladder-3=hang")
    wait_for(tmp_path / "asked.hangs", process)
    (tmp_path / "work/speed/trace.json").write_bytes(bytes(9 << 20))
    process.send_signal(signal.SIGTERM)
    process.communicate()
    files = packed(tmp_path / "out/speed.tgz")
    assert "speed/summary.txt" in files and "speed/trace.json" not in files


def test_carried_caches_are_unpacked_once(start, tmp_path: Path) -> None:
    carry = tmp_path / "carry"
    carry.mkdir()
    (tmp_path / "inductor").mkdir()
    (tmp_path / "inductor/kept.py").write_text("code")
    with tarfile.open(carry / "caches.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "inductor", "inductor")
    # The fake passes unpacking on to the real Python.
    real = tmp_path / "real"
    hand_on = f'[ "$1 $2" != "-m tarfile" ] || exec {sys.executable} "$@"'
    real.write_text(f'#!/bin/sh\n{hand_on}\nexec {tmp_path}/python "$@"\n')
    real.chmod(0o755)
    for _ in range(2):
        process = start("speed.sh", PYTHON=str(real))
        assert process.communicate()[0] and process.returncode == 0
        assert (tmp_path / "work/inductor/kept.py").read_text() == "code"
        (tmp_path / "work/inductor/kept.py").write_text("code")


def test_without_a_folder_for_results_nothing_starts(tmp_path: Path) -> None:
    for script in ("first_light", "speed", "breadth", "all"):
        done = subprocess.run(["bash", str(SCRIPTS / f"{script}.sh")], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2 and "usage: bash" in done.stderr


def test_the_limits_of_a_script_are_below_ten_minutes() -> None:
    for path in SCRIPTS.glob("*.sh"):
        for line in path.read_text().splitlines():
            if line.startswith("begin "):
                assert int(line.split()[2]) <= 540


def test_the_sanitizers_problems_are_solved_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert sanitize.run(torch.device("cpu")) == 0
    assert "10 of 10" in capsys.readouterr().out

    solve, calls = ops.linear_sum_assignment, []

    def wrong(cost: torch.Tensor, **options: str) -> torch.Tensor:
        calls.append(1)  # every second call runs on the CPU and is correct
        return solve(cost, **options) + len(calls) % 2

    monkeypatch.setattr(ops, "linear_sum_assignment", wrong)
    assert sanitize.run(torch.device("cpu")) == 1
    shown = capsys.readouterr()
    assert "3 of 10" in shown.out and "assignment 16x16: the answer differs" in shown.err

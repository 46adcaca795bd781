"""`prior-fast kernels report`, on kernels made up for it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from prior_fast.cli.main import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--arch", "sm_8"], "unknown architecture 'sm_8': did you mean 'sm_80'?"),
        (["--arch", "hopper"], "unknown architecture 'hopper': choose from sm_80, sm_90"),
        (["--arch", ""], "no architecture is named: choose from sm_80, sm_90"),
        (["--op", "segment_men"], "unknown op 'segment_men': did you mean 'segment_mean'?"),
        (["--op", "segment_mean", "linear_sum_assignment", "--arch", "sm_90"], "unknown op 'linear_sum_assignment'"),
    ],
)
def test_unknown_names(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "report", *words]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"prior-fast: {error}") and shown.count("\n") == 1


def test_a_process_that_interprets_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    language = pytest.importorskip("triton.language")
    monkeypatch.setattr(language, "cdiv", object())  # as if Triton had been imported in interpreter mode
    assert main(["kernels", "report", "--op", "segment_mean"]) == 2
    assert "already imported with TRITON_INTERPRET=1" in capsys.readouterr().err


def test_tensor_cores_of_both_architectures(run_made_up: Run, tmp_path: Path) -> None:
    """Kernels compile although the environment asks for the interpreter; the second shape in two of three dtypes."""
    done = run_made_up("command.py", "kernels", "report", "--op", "fitting", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {(row["arch"], *row["dtypes"], row["constants"]["COLUMNS"]): row for row in report["kernels"]}
    assert len(report["kernels"]) == len(rows) == 10 and not report["problems"]
    for (arch, dtype, columns), row in rows.items():
        narrow = dtype != "float32"
        assert (row["tensor_core"]["HMMA"] > 0) == (narrow and arch == "sm_80"), row
        assert (row["tensor_core"]["HGMMA"] > 0) == (narrow and arch == "sm_90"), row
        assert sum(row["dots"].values()) == 1 and row["problem"] is None
        assert row["spills"] == 0 and 0 < row["registers"] < 256 and row["shared_bytes"] > 0
        assert row["warps_per_multiprocessor"] == 4 * row["blocks_per_multiprocessor"] == 64 * row["occupancy"]
        assert row["aligned"] == ["x_ptr", "y_ptr", "N"]
        assert row["reached_by"] == (["N=16 forward", "configuration 0"][columns == 32 :][:1])
    (limit,) = [limit for limit in report["limits"] if limit["dtype"] == "float32"]
    assert limit["bytes"] == 2 * 64 * 16 * 4 and limit["launches"] == 1
    assert limit["chips"]["H200"] == {"seconds": pytest.approx(8192 / 4.8e12), "bound": "memory"}
    assert "HMMA" in done.stdout and "A100-80 us" in done.stdout and max(map(len, done.stdout.splitlines())) <= 120


def test_a_kernel_that_spills_is_named(run_made_up: Run, tmp_path: Path) -> None:
    done = run_made_up("command.py", "kernels", "report", "--arch", "sm_80", "--op", "spilling", "--out", tmp_path)
    assert done.returncode == 1
    how = "bfloat16, 16384 forward: BLOCK=16384, warps=1, stages=1"
    assert done.stderr.startswith(f"prior-fast: _spilling_kernel on sm_80 ({how}) spills")
    (row,) = json.loads((tmp_path / "report.json").read_text())["kernels"]
    assert row["spills"] > 100 and row["stack_bytes"] > 100 and "spills" in row["problem"]


def test_too_much_shared_memory_and_a_kernel_without_a_case(run_made_up: Run, tmp_path: Path) -> None:
    done = run_made_up("command.py", "kernels", "report", "--arch", "sm_90", "--op", "greedy", "--out", tmp_path)
    assert done.returncode == 1
    assert "_greedy_kernel on sm_90" in done.stderr and "262144 bytes of shared memory" in done.stderr
    assert done.stderr.endswith("; also wrong: _forgotten_kernel\n")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["kernels"][0]["blocks_per_multiprocessor"] == 0
    assert report["problems"][1] == "_forgotten_kernel is launched by no call of the bench files"


def test_what_is_compiled_is_what_triton_would_launch(run_made_up: Run) -> None:
    """Triton's own launcher, stopped before it needs a GPU, makes the same kernel versions for unusual arguments."""
    done = run_made_up("as_launched.py")
    assert done.returncode == 0, done.stderr
    pairs = [line.split() for line in done.stdout.splitlines()]
    assert len({theirs for theirs, _ in pairs}) == 4
    assert [theirs for theirs, _ in pairs] == [ours for _, ours in pairs]


@pytest.mark.slow
def test_tensor_core_instructions_are_counted_as_the_disassembler_does(run_made_up: Run) -> None:
    done = run_made_up("disassembled.py")
    assert done.returncode == 0, done.stderr
    pairs = [line.split(" / ") for line in done.stdout.splitlines()]
    assert len(pairs) == 6 and all(ours == theirs for ours, theirs in pairs), done.stdout
    assert len({ours for ours, _ in pairs}) == 5  # none in float32, on neither architecture

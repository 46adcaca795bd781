"""`prior-fast doctor`."""

import argparse
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from prior_fast import ops
from prior_fast.cli import doctor
from prior_fast.cli.advice import advice
from prior_fast.hardware import versions
from prior_fast.ops.common.backend import BACKENDS, explain, resolve_backend


def run(out: Path | None = None) -> int:
    parser = argparse.ArgumentParser()
    doctor.add_parser(parser.add_subparsers())
    args = parser.parse_args(["doctor", *(["--out", str(out)] if out else [])])
    return args.run(args)


def op_names() -> set[str]:
    return {name for name in ops.__all__ if not isinstance(getattr(ops, name), type)}


def test_report_names_versions_machine_and_every_op(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert torch.__version__.startswith(report["software"]["torch"])
    assert int(report["machine"]["CPU cores"]) >= 1
    assert ("GPU" in report["machine"]) is not torch.cuda.is_available()
    assert {row["op"] for row in report["ops"]} == op_names()
    shown = capsys.readouterr().out
    assert all(name in shown for name in op_names())


def test_the_backend_told_is_the_one_that_serves() -> None:
    for row in doctor.backends():
        assert row["backend"] in BACKENDS, row
        call = doctor.example_call(row["op"], doctor.op_device())
        call(backend=row["backend"])
        for name, reason in row["unable"].items():
            with pytest.raises(ValueError, match="can't serve"):
                call(backend=name)
            assert reason


@pytest.mark.parametrize("asked", ["scipy", "reference"])
def test_the_environment_decides_where_it_can(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIOR_FAST_BACKEND", asked)
    rows = {row["op"]: row for row in doctor.backends()}
    assert rows["linear_sum_assignment"]["backend"] == asked
    assert "PRIOR_FAST_BACKEND" in rows["linear_sum_assignment"]["why"]


def test_an_unknown_backend_in_the_environment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIOR_FAST_BACKEND", "tritn")
    row = explain(ops.info_nce, doctor.example_call("info_nce", torch.device("cpu")))
    assert row["backend"] == "none" and "no such backend" in row["why"]


def test_reasons_why_a_backend_cannot_serve_are_kept() -> None:
    available = {"triton": "wants a GPU; none is here", "cuda": "the extension is not built", "reference": None}

    def op(backend: str | None = None) -> str:
        return resolve_backend("op", backend, available)

    assert explain(op, op) == {
        "backend": "reference",
        "why": "triton: wants a GPU; none is here; cuda: the extension is not built",
        "unable": {"triton": "wants a GPU; none is here", "cuda": "the extension is not built"},
    }
    assert op() == "reference"


def test_missing_tools_and_packages_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(versions, "PACKAGES", ("no-such-package",))
    assert run() == 0
    assert dict(doctor.compilers())["nvcc"] == "not found"
    assert dict(versions.versions())["no-such-package"].startswith("not installed")


def test_a_tool_that_does_not_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "nvcc"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.tool_version("nvcc", r"release (\S+?),") == f"{broken} does not run"
    broken.write_text("#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.48\n")
    assert doctor.tool_version("nvcc", r"release (\S+?),") == f"13.0 ({broken})"


def told(**changes: object) -> list[str]:
    given: dict = {
        "software": {
            "torch": "2.14.1",
            "DALI": "not installed: pip install nvidia-dali-cuda130 (optional, reads JPEGs)",
        },
        "hardware": {"CPU cores": "2", "memory": "24 GiB", "CUDA of torch": "13.0", "GPU": "none"},
        "libraries": {"cpu": None, "cuda": "the cuda library is not built: prior-fast build"},
        "ops": [{"op": "info_nce", "backend": "reference", "why": ""}],
    }
    return advice(**{**given, **changes})


def test_the_first_lines_say_whether_it_can_train_and_that_nothing_is_missing() -> None:
    lines = told()
    assert lines[0].startswith("This machine can train on 2 CPU cores and 24 GiB of memory; torch finds no GPU.")
    assert "not known until it is measured: prior-fast bench train" in lines[1]
    # Nothing needs the library for GPUs without one, and DALI is optional.
    assert lines[2:] == ["Nothing is missing."]


def test_a_gpu_comes_first_and_needs_its_library() -> None:
    gpus = {f"GPU {number}": "NVIDIA H200, 140 GiB, compute capability 9.0" for number in (0, 1)}
    lines = told(hardware={"CPU cores": "8", "memory": "99 GiB", "CUDA of torch": "13.0", **gpus})
    assert lines[0].startswith("This machine can train on a GPU: NVIDIA H200") and "and 1 more" in lines[0]
    assert lines[2:] == ["Missing: the cuda library is not built: prior-fast build (until then other code serves)"]


def test_what_is_missing_comes_with_what_to_do() -> None:
    hardware = {"CPU cores": "2", "memory": "1 GiB", "CUDA of torch": "none: torch is a CPU build", "GPU": "none"}
    lines = told(software={"scipy": "not installed: pip install scipy"}, hardware=hardware)
    assert "Missing: scipy: pip install scipy" in lines
    assert any(line.startswith("Missing: support of GPUs: torch is a CPU build; if there is") for line in lines)


def test_an_op_without_a_backend_is_told_first() -> None:
    op = {"op": "info_nce", "backend": "none", "why": "PRIOR_FAST_BACKEND=tritn: there is no such backend"}
    assert told(ops=[op])[0].startswith("This machine can't train: info_nce can't be computed: PRIOR_FAST_BACKEND")


def test_the_advice_comes_before_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    shown = capsys.readouterr().out
    assert shown.startswith("This machine can train on") and shown.index("This machine") < shown.index("software")


def table(no_color: str, terminal: bool) -> str:
    """What a table is in a pipe or in a terminal."""
    code = "from prior_fast.console import print_table; print_table('a title', ('a',), [('b',)])"
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    read, write = pty.openpty() if terminal else os.pipe()
    environment |= {"TERM": "xterm-256color", "NO_COLOR": no_color}
    subprocess.run([sys.executable, "-c", code], stdout=write, env=environment, check=True, timeout=60)
    shown = os.read(read, 100_000).decode()
    for each in (read, write):
        os.close(each)
    assert "a title" in shown
    return shown


def test_escape_codes_only_in_a_terminal_and_no_colors_where_they_are_not_wanted() -> None:
    assert "\x1b" not in table("", terminal=False)
    assert "\x1b" in table("", terminal=True)
    # NO_COLOR is about colors; bold and italic letters may stay.
    assert not re.search(r"\x1b\[[\d;]*[34]\d", table("1", terminal=True))

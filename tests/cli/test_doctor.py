"""`prior-fast doctor`."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch

from prior_fast import ops
from prior_fast.cli import doctor
from prior_fast.hardware import versions
from prior_fast.ops.common.backend import BACKENDS, resolve_backend


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
    row = doctor.explain(ops.info_nce, doctor.example_call("info_nce", torch.device("cpu")))
    assert row["backend"] == "none" and "no such backend" in row["why"]


def test_reasons_why_a_backend_cannot_serve_are_kept() -> None:
    available = {"triton": "wants a GPU; none is here", "cuda": "the extension is not built", "reference": None}

    def op(backend: str | None = None) -> str:
        return resolve_backend("op", backend, available)

    assert doctor.explain(op, op) == {
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

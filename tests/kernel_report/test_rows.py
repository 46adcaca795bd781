"""How the report handles a failing compiler."""

from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import pytest

from prior_fast.errors import RunError
from prior_fast.kernel_report import report
from prior_fast.kernel_report.compile import Compiled, compile_version
from prior_fast.kernel_report.print_tables import print_kernels
from prior_fast.kernel_report.resources import MachineCode
from prior_fast.kernel_report.specialize import Version

TYPES = (("x_ptr", "*bf16"), ("N", "constexpr"))
VERSION = Version("no.such.module", "_a_kernel", TYPES, (("N", 3),), ("x_ptr",), warps=4, stages=2)


def row(compiled: Compiled) -> dict[str, object]:
    return report.make_row("an_op", VERSION, "sm_80", [("bfloat16", "N=3 forward")], compiled)


def test_a_compiler_s_error_is_told_for_its_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    compiled = compile_version((VERSION, "sm_80"))
    assert compiled.code is None
    made = row(compiled)
    assert made["problem"] == (
        "_a_kernel on sm_80 (bfloat16, N=3 forward: N=3, warps=4, stages=2) does not compile: "
        "ModuleNotFoundError: No module named 'no'"
    )
    print_kernels([made])
    assert "a " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spills", "shared", "problem"),
    [
        (0, 166912, None),
        (0, 166913, "takes 166913 bytes of shared memory, more than the 166912 of a block"),
        (3, 0, "spills registers: 3 loads and stores of local memory"),
    ],
)
def test_problems(spills: int, shared: int, problem: str | None) -> None:
    found = row(Compiled(MachineCode(32, 8, spills, {"HMMA": 0, "HGMMA": 0}), shared))["problem"]
    assert found is None if problem is None else str(found).endswith(problem)


def test_a_compiler_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: object) -> Iterator[Compiled]:
        yield Compiled()
        raise BrokenProcessPool

    monkeypatch.setattr("prior_fast.processes.parallel_map", dies)
    with pytest.raises(RunError, match="a compiling process died at _a_kernel on sm_90 or a later one"):
        report._compile_jobs([(VERSION, "sm_80"), (VERSION, "sm_90")], 2)

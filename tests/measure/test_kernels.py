"""`prior-fast bench kernels` end to end, at the smallest shapes."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from prior_fast.bench.common.case import Public
from prior_fast.cli.main import main
from prior_fast.measure.kernels import bench_kernels
from prior_fast.ops import segment_mean
from prior_fast.ops.common import cpp

CPU = torch.device("cpu")
QUICK = ["--device", "cpu", "--seconds", "0.001"]


@pytest.fixture(autouse=True)
def short_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prior_fast.measure.roofline.LEAST_SECONDS", 0.01)


@pytest.fixture
def one_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a CPU without a C++ compiler: the op is the reference, beside no other backend."""
    monkeypatch.setattr(cpp, "_unavailable", lambda: "the cpu library is not built")


def change_cases(monkeypatch: pytest.MonkeyPatch, change: Callable[[Public], Public], number: int = 1) -> None:
    """Keep the first cases of an op, changed."""
    public_cases = bench_kernels.public_cases

    def changed(*arguments: Any) -> Iterator[Public]:
        return map(change, itertools.islice(public_cases(*arguments), number))

    monkeypatch.setattr(bench_kernels, "public_cases", changed)


def measure(folder: Path, *options: str) -> int:
    return main(["bench", "kernels", *QUICK, "--op", "segment_mean", "--out", str(folder), *options])


def test_two_ops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "kernels", *QUICK, "--op", "segment_mean", "linear_sum_assignment", "--out", str(tmp_path)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "segment_mean B=16" in shown and "scipy" in shown and "limit us" in shown
    report = json.loads((tmp_path / "kernels.json").read_text())
    assert {row["op"] for row in report["rows"]} == {"segment_mean", "linear_sum_assignment"}
    assert not report["problems"] and report["machine"]["processor"] and report["machine"]["versions"]["torch"]
    for row in report["rows"]:
        low, high = row["spread"]
        assert 0 < low <= row["milliseconds"] <= high and len(row["passes"]) == bench_kernels.PASSES
        assert row["calls"] >= 3 * bench_kernels.PASSES and row["limit_milliseconds"] > 0
        assert row["share_of_limit"] == pytest.approx(row["limit_milliseconds"] / row["milliseconds"])
    assert len({row["name"] for row in report["rows"]}) == len(report["rows"])
    markdown = (tmp_path / "kernels.md").read_text()
    for name in ("bars.png", "roofline.png", "scaling.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG") and f"({name})" in markdown
    assert main(["bench", "compare", *[str(tmp_path / "kernels.json")] * 2]) == 0


@pytest.mark.usefixtures("one_backend")
def test_a_planted_slowdown_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = delay = 0.0

    def slowed(case: Public) -> Public:
        def call(*inputs: torch.Tensor, backend: str | None = None) -> Any:
            nonlocal now
            now += 0.03 + delay
            return case.call(*inputs, backend=backend)

        return dataclasses.replace(case, call=call)

    change_cases(monkeypatch, slowed)
    # The test's own clock, so that other load on the machine has no effect.
    monkeypatch.setattr("prior_fast.measure.timing.perf_counter", lambda: now)
    assert measure(tmp_path / "before") == 0
    delay = 0.03
    assert measure(tmp_path / "after") == 0
    files = [str(tmp_path / name / "kernels.json") for name in ("before", "after")]
    capsys.readouterr()
    assert main(["bench", "compare", *files, "--over", "0.25"]) == 1
    assert "2 slower, 0 faster" in capsys.readouterr().out
    assert main(["bench", "compare", *reversed(files), "--over", "0.25"]) == 0


@pytest.mark.usefixtures("one_backend")
def test_an_empty_competitor_is_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"empty": lambda *inputs: None, "absent": "not installed: pip install absent", "broken": broken}
    change_cases(monkeypatch, lambda case: dataclasses.replace(case, others=others))
    assert measure(tmp_path) == 1
    captured = capsys.readouterr()
    assert "segment_mean B=16" in captured.err and "empty: it returned NoneType" in captured.err
    report = json.loads((tmp_path / "kernels.json").read_text())
    assert {row["who"] for row in report["rows"]} == {"prior_fast"} and len(report["problems"]) == 2
    reasons = {entry["who"]: entry["reason"] for entry in report["left_out"]}
    assert reasons["absent"].startswith("not installed") and reasons["broken"] == "RuntimeError: out of order"


def broken(*inputs: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("out of order")


@pytest.mark.usefixtures("one_backend")
def test_an_empty_op_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def emptied(case: Public) -> Public:
        def call(x: torch.Tensor, cu: torch.Tensor, backend: str | None = None) -> torch.Tensor:
            right = case.call(x, cu, backend=backend)
            return right if backend else torch.zeros_like(right)

        return dataclasses.replace(case, call=call, both=None)

    change_cases(monkeypatch, emptied)
    assert measure(tmp_path) == 1
    assert json.loads((tmp_path / "kernels.json").read_text())["rows"] == []


def test_competitors_alone_are_timed_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the op itself fails its check."""
    right = {"right": lambda x, cu: segment_mean(x, cu, backend="reference")}

    def emptied(case: Public) -> Public:
        def call(x: torch.Tensor, cu: torch.Tensor, backend: str | None = None) -> torch.Tensor:
            found = case.call(x, cu, backend=backend)
            return found if backend else torch.zeros_like(found)

        return dataclasses.replace(case, call=call, both=None, others=right)

    change_cases(monkeypatch, emptied)
    assert measure(tmp_path) == 1
    report = json.loads((tmp_path / "kernels.json").read_text())
    who = {row["who"] for row in report["rows"]}
    assert "right" in who and "prior_fast" not in who and report["problems"]
    assert (tmp_path / "bars.png").is_file() and not (tmp_path / "roofline.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--op", "segment_man"], "unknown op 'segment_man': did you mean 'segment_mean'"),
        (["--op", "frobnicate"], "unknown op 'frobnicate'"),
        (["--dtype", "float8"], "unknown dtype 'float8'"),
        (["--seconds", "0"], "--seconds 0.0: must be more than 0"),
        (["--sconds", "1"], "unknown argument"),
    ],
)
def test_wrong_names_are_wrong_use(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "kernels", "--device", "cpu", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", "kernels", "--device", "cuda"]) == 2

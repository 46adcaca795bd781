"""The order in which ops are measured, what a limit leaves out, and the file that a stopped run leaves."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from prior_fast.bench.common.case import Public, Work, batches
from prior_fast.cli.main import main
from prior_fast.measure.kernels import schedule
from prior_fast.measure.kernels.bench_kernels import OpsOptions, public_cases, run_kernels
from prior_fast.measure.kernels.contest import COMPILED, Contest, Entry, contestants, entries
from prior_fast.measure.kernels.schedule import PASSES, ROOM, Limit, groups
from prior_fast.measure.timing import Timing
from prior_fast.ops.common.backend import BackendError

CPU = torch.device("cpu")
CALLS = 2 * len(batches(small=True))  # of segment_mean, and of info_nce: forward, and with gradients


class Stopped(BaseException):
    """Stands for a signal that ends a run."""


class Clock:
    """A clock that a test advances: with each check, and with each pass over a call."""

    def __init__(self) -> None:
        self.now = self.check = self.compiled = self.one_pass = 0.0
        self.checked: list[str] = []
        self.timed = 0
        self.stop_after = 10**9

    def prepare(self, entry: Entry, notes: Any) -> Contest:
        self.now += self.compiled if entry.with_compile else self.check
        self.checked.append(entry.name + (" compiled" if entry.with_compile else ""))
        whos = ["prior_fast", COMPILED] if entry.with_compile else ["prior_fast"]
        return Contest(entry, dict.fromkeys(whos, print), dict.fromkeys(whos, 0.0))

    def time(self, contest: Contest, seconds: float, passes: int) -> None:
        if self.timed == self.stop_after:
            raise Stopped
        self.timed += 1
        self.now += self.one_pass
        contest.passes.append({who: Timing([[1e-3 * len(contest.runs)]]) for who in contest.runs})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("prior_fast.measure.roofline.LEAST_SECONDS", 0.001)
    for module in ("measure.kernels.schedule", "cli.bench.kernels"):
        monkeypatch.setattr(f"prior_fast.{module}.perf_counter", lambda: clock.now)
    monkeypatch.setattr(schedule, "prepare", clock.prepare)
    monkeypatch.setattr(Contest, "time", lambda contest, *rest: clock.time(contest, *rest))
    return clock


def run(folder: Path, *ops: str, limit: float | None = None, seconds: float = 0.1) -> dict[str, Any]:
    run_kernels(OpsOptions(CPU, ops, out=folder, limit=Limit(limit), seconds=seconds))
    return read(folder)


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "kernels.json").read_text())


def ops_of(report: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(row["op"] for row in report["rows"]))


def names(found: list[list[Entry]]) -> list[list[str]]:
    return [
        [f"{e.case.shape} {e.dtype}{' +' if e.backward else ''}{' compiled' if e.with_compile else ''}" for e in group]
        for group in found
    ]


def make(shape: str, both: bool = True, compiles: bool = True) -> Public:
    work = Work(1, 1)
    return Public("an_op", shape, print, (torch.zeros(1),), work, work if both else None, compiles=compiles)


def test_priors_own_shapes_come_first_and_what_is_compiled_second() -> None:
    cases = [
        (dtype, make(shape, both=False)) for dtype in ("bf16", "fp32") for shape in ("B=128", "B=256", "pool B=128")
    ]
    own = [["B=128 bf16"], ["pool B=128 bf16"], ["B=128 fp32"], ["pool B=128 fp32"]]
    rest = [["B=256 bf16"], ["B=256 fp32"]]
    assert names(list(groups(cases, (), False))) == own + rest
    compiled = [["B=128 bf16 compiled"], ["pool B=128 bf16 compiled"]]
    assert names(list(groups(cases, ["bf16"], False))) == own + compiled + rest
    assert names(list(groups(cases, ["bf16"], True))) == [*own, *compiled, *rest, ["B=256 bf16 compiled"]]


def test_directions_are_measured_together_and_compiled_one_by_one() -> None:
    found = names(list(groups([("bf16", make("B=1"))], ["bf16"], False)))
    assert found == [["B=1 bf16", "B=1 bf16 +"], ["B=1 bf16 compiled"], ["B=1 bf16 + compiled"]]
    assert len(list(groups([("bf16", make("B=1", compiles=False))], ["bf16"], False))) == 1


def test_without_a_limit_a_pass_on_a_cpu_goes_over_all_ops(tmp_path: Path, clock: Clock) -> None:
    clock.stop_after = CALLS + 3  # of the two ops' calls
    with pytest.raises(Stopped):
        run(tmp_path, "segment_mean", "info_nce")
    assert len(clock.checked) == 2 * CALLS and not (tmp_path / "kernels.json").exists()


def test_with_a_limit_an_op_is_at_its_end_before_the_next(tmp_path: Path, clock: Clock) -> None:
    clock.stop_after = CALLS * PASSES + 2 * 3 + 1
    with pytest.raises(Stopped):
        run(tmp_path, "segment_mean", "info_nce", limit=100.0)
    report = read(tmp_path)
    assert not report["complete"] and report["unfinished"] == ["info_nce"]
    passes = {(row["op"], row["direction"]): len(row["passes"]) for row in report["rows"]}
    assert set(passes.values()) == {PASSES, 3} and passes["info_nce", "forward"] == 3
    assert [row["op"] for row in report["rows"]].count("info_nce") == 2


def test_a_stopped_run_leaves_a_report_that_can_be_read(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "whole", "segment_mean")
    clock.timed, clock.stop_after = 0, CALLS * 2 + 5  # in the third pass
    with pytest.raises(Stopped):
        run(tmp_path / "part", "segment_mean")
    report = read(tmp_path / "part")
    assert not report["complete"] and {len(row["passes"]) for row in report["rows"]} == {2}
    assert all(row["limit_milliseconds"] > 0 for row in report["rows"]) and report["ceilings"]["bandwidth"] > 0
    files = [str(tmp_path / name / "kernels.json") for name in ("whole", "part")]
    assert main(["bench", "compare", *files]) == 0
    assert f"{CALLS} the same" in capsys.readouterr().out
    page = tmp_path / "page.md"
    kinds = ("limits", "competitors", "slower", "machine")
    page.write_text("\n".join(f"<!-- table {kind} kernels.json -->\n<!-- end of table -->" for kind in kinds))
    assert main(["bench", "page", str(page), "--results", str(tmp_path / "part")]) == 0
    assert page.read_text().count("| segment_mean |") == CALLS


def test_a_run_that_is_stopped_before_it_has_a_row_leaves_the_rows_that_are_there(tmp_path: Path, clock: Clock) -> None:
    before = run(tmp_path, "segment_mean")
    clock.stop_after = clock.timed
    with pytest.raises(Stopped):
        run(tmp_path, "segment_mean")
    assert read(tmp_path) == before


def test_runs_of_single_ops_make_one_report(tmp_path: Path, clock: Clock) -> None:
    assert ops_of(run(tmp_path, "segment_mean")) == ["segment_mean"]
    both = run(tmp_path, "info_nce")
    assert ops_of(both) == ["info_nce", "segment_mean"] and both["complete"] and len(both["rows"]) == 2 * CALLS
    assert both["left_out"] == []
    again = run(tmp_path, "segment_mean")
    assert len(again["rows"]) == 2 * CALLS and again["complete"]
    apart, together = run(tmp_path / "one", "info_nce", "segment_mean"), again
    assert [row["name"] for row in apart["rows"]] == [row["name"] for row in together["rows"]]


def test_an_op_that_was_stopped_stays_unfinished_until_it_is_measured_again(tmp_path: Path, clock: Clock) -> None:
    clock.stop_after = 10
    with pytest.raises(Stopped):
        run(tmp_path, "segment_mean")
    clock.stop_after = 10**9
    assert run(tmp_path, "info_nce")["unfinished"] == ["segment_mean"]
    assert run(tmp_path, "segment_mean")["complete"]


def test_a_report_that_does_not_say_is_complete(tmp_path: Path, clock: Clock) -> None:
    report = run(tmp_path, "segment_mean")
    del report["complete"], report["unfinished"]
    (tmp_path / "kernels.json").write_text(json.dumps(report))
    assert run(tmp_path, "info_nce")["complete"]


def test_rows_of_another_machine_or_other_options_are_not_joined(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    report = run(tmp_path, "segment_mean")
    words = ["bench", "kernels", "--device", "cpu", "--op", "info_nce", "--out", str(tmp_path)]
    assert main([*words, "--seconds", "0.2"]) == 2
    assert "has segment_mean with another seconds: 0.1, here it is 0.2" in capsys.readouterr().err
    report["machine"]["processor"] = "another one"
    (tmp_path / "kernels.json").write_text(json.dumps(report))
    assert main([*words, "--seconds", "0.1"]) == 2
    assert "another processor: 'another one'" in capsys.readouterr().err
    # No row of the file would stay.
    assert run(tmp_path, "segment_mean", seconds=0.2)["machine"]["processor"] != "another one"


def limited(folder: Path, clock: Clock, limit: float) -> dict[str, Any]:
    report = run(folder, "segment_mean", limit=limit)
    assert clock.now <= limit
    return report


def test_a_limit_leaves_out_what_is_not_begun(tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    clock.check, clock.one_pass = 2.16, 0.05
    words = ["bench", "kernels", "--device", "cpu", "--op", "segment_mean", "--out", str(tmp_path), "--limit"]
    assert main([*words, "15"]) == 0
    shown = capsys.readouterr().out
    report = read(tmp_path)
    (entry,) = report["left_out"]
    shapes = [case.shape for case in public_cases("segment_mean", CPU, "float32", True)]
    assert {row["shape"] for row in report["rows"]} == set(shapes[:2]) and not report["complete"]
    assert entry == {
        "who": f"{CALLS - 4} calls",
        "ops": ["segment_mean"],
        "reason": f"not begun within --limit 15: {'; '.join(shapes[2:])}",
    }
    assert (
        f"left out: {CALLS - 4} calls (segment_mean): {entry['reason']}" in shown
        and "not complete: segment_mean" in shown
    )
    assert "**not complete: segment_mean**" in (tmp_path / "kernels.md").read_text()


def test_a_limit_ends_the_passes_too(tmp_path: Path, clock: Clock) -> None:
    clock.one_pass = 2.0
    report = limited(tmp_path, clock, 15.0)
    assert [len(row["passes"]) for row in report["rows"]] == [3, 3]
    assert [entry["reason"].split(" within")[0] for entry in report["left_out"]] == [
        "not timed in all passes",
        "not begun",
    ]


def test_a_limit_that_is_used_up_at_once_is_no_failure(tmp_path: Path, clock: Clock) -> None:
    before = run(tmp_path, "segment_mean")
    report = run_kernels(OpsOptions(CPU, ["segment_mean"], out=tmp_path, limit=Limit(ROOM / 2)))
    assert report["rows"] == [] and not report["complete"] and read(tmp_path) == before


def compiled(folder: Path, clock: Clock, limit: float | None) -> dict[str, Any]:
    run_kernels(OpsOptions(CPU, ["segment_mean"], compile=True, out=folder, limit=Limit(limit)))
    return read(folder)


def test_nothing_is_compiled_in_the_second_half_of_a_limit(tmp_path: Path, clock: Clock) -> None:
    clock.check, clock.compiled = 1.0, 25.0
    report = compiled(tmp_path, clock, 40.0)
    assert [row["who"] for row in report["rows"]] == ["prior_fast", COMPILED, *["prior_fast"] * (CALLS - 1)]
    assert clock.now < 40 - ROOM and not report["complete"]
    assert [entry["who"] for entry in report["left_out"]] == [COMPILED]
    assert report["left_out"][0]["reason"].startswith("not compiled within --limit 40: B=16 ")


def test_what_is_compiled_takes_the_place_of_what_was_not(tmp_path: Path, clock: Clock) -> None:
    report = compiled(tmp_path, clock, 1000.0)
    assert len(report["rows"]) == len({row["name"] for row in report["rows"]}) == 2 * CALLS
    assert {row["milliseconds"] for row in report["rows"]} == {2.0} and report["complete"]
    clock.timed, clock.stop_after = 0, 2 * PASSES + 3
    with pytest.raises(Stopped):
        compiled(tmp_path / "stopped", clock, 1000.0)
    # The row with torch.compile has fewer passes, so the row without it stays.
    assert {len(row["passes"]) for row in read(tmp_path / "stopped")["rows"]} == {PASSES}


def test_words_keep_a_backend_out() -> None:
    case = next(public_cases("match_prototypes", CPU, "float32", True))
    with_scipy = {"prior_fast": None, "cpp": None, "scipy": None}
    able = contestants(dataclasses.replace(case, call=lambda *inputs, backend: serve(with_scipy)), False)[0]
    kept, reasons = contestants(
        dataclasses.replace(case, call=lambda *inputs, backend: serve(with_scipy), others={"scipy": "too slow"}), False
    )
    assert list(able) == ["prior_fast", "cpp", "scipy"] and list(kept) == ["prior_fast", "cpp"]
    assert reasons["scipy"] == "too slow"


def serve(available: dict[str, str | None]) -> None:
    raise BackendError("no such backend", available)


def test_the_host_does_not_solve_the_largest_assignments_of_a_gpu() -> None:
    large = public_cases("linear_sum_assignment", torch.device("meta"), "bfloat16", False)
    slow = [case.shape for case in large if isinstance(case.others.get("scipy"), str)]
    assert slow == ["B=128 N=300 M=300", "many ties B=128 N=300 M=300"]
    small = public_cases("linear_sum_assignment", CPU, "float32", True)
    assert not any("scipy" in case.others for case in small)


def test_each_direction_is_an_entry() -> None:
    assert [entry.direction for entry in entries(make("B=1"), "float32")] == ["forward", "forward+backward"]
    assert len(entries(make("B=1", both=False), "float32")) == 1

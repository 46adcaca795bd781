"""`prior-fast bench compare`: it finds rows that became slower beyond both spreads, and no others."""

import json
from pathlib import Path
from typing import Any

import pytest

from prior_fast.cli.main import main
from prior_fast.measure.compare_reports import changes, read_rows

CALL = {"op": "segment_mean", "shape": "B=16", "direction": "forward", "dtype": "float32"}


def kernels(milliseconds: float, spread: float = 0.05, ours: bool = True) -> dict[str, Any]:
    span = [milliseconds * (1 - spread), milliseconds * (1 + spread)]
    row = {"name": "segment_mean forward", "milliseconds": milliseconds, "spread": span, "ours": ours}
    return {"machine": {"processor": "one"}, "rows": [row | CALL | {"passes": [span[0], milliseconds, span[1]]}]}


def train(milliseconds: float) -> dict[str, Any]:
    measured = {"key": "a", "name": "plain", "milliseconds": milliseconds, "quartiles": [milliseconds] * 2}
    return {"rungs": [measured, {"key": "e", "name": "compiled", "note": "not asked for"}]}


def loader(rate: float) -> dict[str, Any]:
    return {"rows": [{"source": "memory", "pairs_per_second": rate, "median_ms": 1.0}], "left_out": {}}


def compare(folder: Path, before: Any, after: Any, *options: str) -> int:
    paths = [folder / "before.json", folder / "after.json"]
    for path, report in zip(paths, (before, after)):
        path.write_text(json.dumps(report))
    return main(["bench", "compare", *map(str, paths), *options])


@pytest.mark.parametrize(
    ("before", "after"), [(kernels(1.0), kernels(1.3)), (train(10.0), train(13.0)), (loader(900.0), loader(600.0))]
)
def test_a_slower_row_is_a_failure_and_a_faster_one_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: Any, after: Any
) -> None:
    assert compare(tmp_path, before, after) == 1
    assert "1 slower, 0 faster" in capsys.readouterr().out
    assert compare(tmp_path, after, before) == 0
    assert "0 slower, 1 faster" in capsys.readouterr().out


def test_within_the_spread_nothing_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, kernels(1.0, spread=0.2), kernels(1.3, spread=0.2)) == 0
    assert "1 the same" in capsys.readouterr().out


def test_the_share_is_asked_for(tmp_path: Path) -> None:
    assert compare(tmp_path, kernels(1.0, 0.01), kernels(1.08, 0.01)) == 0
    assert compare(tmp_path, kernels(1.0, 0.01), kernels(1.08, 0.01), "--over", "0.05") == 1


def test_a_slower_competitor_is_said_and_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(tmp_path, kernels(1.0, ours=False), kernels(2.0, ours=False)) == 0
    assert "1 slower" in capsys.readouterr().out


def test_rows_of_one_report_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = kernels(1.0)
    more["rows"].append({"name": "info_nce forward", "milliseconds": 1.0})
    assert compare(tmp_path, kernels(1.0), more) == 0
    assert "1 in one file only" in capsys.readouterr().out


def test_ratios_to_competitors_are_compared_pass_by_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def both(ours: float, other: float, spread: float) -> dict[str, Any]:
        rows = kernels(ours, spread)["rows"] + kernels(other, spread, ours=False)["rows"]
        rows[1]["name"] = "segment_mean forward scipy"
        return {"rows": rows}

    # Both are twice as slow, by different amounts in each pass: their ratio is unchanged.
    assert compare(tmp_path, both(1.0, 3.0, 0.3), both(2.0, 6.0, 0.2)) == 1
    shown = capsys.readouterr().out
    assert "2 slower, 0 faster" in shown and "times of competitors over ours: 0 changed, 1 the same" in shown
    compare(tmp_path, both(1.0, 3.0, 0.3), both(1.0, 4.0, 0.3))
    shown = capsys.readouterr().out
    assert "0 slower, 0 faster" in shown and "times of competitors over ours: 1 changed, 0 the same" in shown


def test_a_machine_that_became_slower_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ceilings = {"ceilings": {"bandwidth": 2e10, "rates": {"float32": 1e11}}}
    slower = {"ceilings": {"bandwidth": 1e10, "rates": {"float32": 0.95e11}}}
    compare(tmp_path, kernels(1.0) | ceilings, kernels(1.0) | slower)
    shown = capsys.readouterr().out
    assert "large copies ran 0.50 times as fast" in shown and "products" not in shown


def test_another_machine_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare(tmp_path, kernels(1.0), kernels(1.0) | {"machine": {"processor": "two"}})
    assert "not the same machine: processor is 'one' before and 'two' after" in capsys.readouterr().out


def test_unmeasured_rows_are_no_rows() -> None:
    assert list(read_rows(train(1.0))) == ["a plain"]
    assert changes(read_rows(train(1.0)), {}, 0.1) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (kernels(1.0), train(1.0), "no row in common"),
        (kernels(1.0), {"losses": []}, "has no rows"),
        (kernels(1.0), [], "has no rows"),
    ],
)
def test_wrong_files_are_wrong_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], before: Any, after: Any, words: str
) -> None:
    assert compare(tmp_path, before, after) == 2
    assert words in capsys.readouterr().err


def test_missing_and_broken_files_are_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert main(["bench", "compare", str(broken), str(broken)]) == 2
    assert "is no JSON file" in capsys.readouterr().err
    assert main(["bench", "compare", str(tmp_path / "no.json"), str(broken)]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["bench", "compare", str(broken), str(broken), "--over", "-1"]) == 2

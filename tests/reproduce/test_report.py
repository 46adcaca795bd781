"""A filled table: measured numbers, printed ones, what failed, what was not run, and the differences in protocol."""

import json
from pathlib import Path
from typing import Any

import pytest

from prior_fast.reproduce.execute import Outcome
from prior_fast.reproduce.measures import Blocks, Drawn, FineTuned, Value
from prior_fast.reproduce.report import write_report
from prior_fast.reproduce.steps import Step
from prior_fast.reproduce.tables import TABLES


def step(out: Path, name: str, content: Any, proof: str = "metrics.json") -> Step:
    folder = out / name
    if content is not None:
        folder.mkdir(parents=True)
        (folder / proof).write_text(json.dumps(content))
    return Step(name, ("evaluate",), folder, proof)


def test_numbers_are_percent_over_splits_and_draws(tmp_path: Path) -> None:
    tuned = step(tmp_path, "tuned", {"metrics": {"auroc": {"mean": 0.8616, "std": 0.0064, "splits": 5}}})
    value = FineTuned("classification", "chexpert", 1, "auroc").read([tuned])
    assert str(value) == "86.16 ± 0.64" and value.runs == 5
    draws = [
        step(tmp_path, f"draw-{i}", {"metrics": {"image_to_text": {"class_level": {"precision_at_5": {"value": v}}}}})
        for i, v in enumerate((0.2, 0.4, None))
    ]
    value = Drawn("retrieval", ("image_to_text", "class_level", "precision_at_5")).read(draws)
    assert (value.mean, value.std, value.runs) == (pytest.approx(30), pytest.approx(14.1421356), 2)
    points = [{"blocks": n, "mean": n / 10, "std": None, "splits": 1} for n in range(4)]
    swept = step(tmp_path, "swept", {"points": points}, "sweep.json")
    assert str(Blocks("chexpert", 1, 3).read([swept])) == "30.00"
    assert str(Blocks("chexpert", 1, 4).read([swept])) == "undefined"  # an encoder of three stages
    assert str(Value(None, None, 0)) == "undefined"


def cells_of(name: str, out: Path, finished: set[str]) -> dict[tuple[str, str], tuple[Step, ...]]:
    metrics = {"metrics": {key: {"mean": 0.5, "std": 0.01, "splits": 5} for key in ("auroc", "dice_positives")}}
    table = TABLES[name]
    return {
        (variant, column.key): (
            step(out, f"{variant}-{column.key}", metrics if f"{variant}-{column.key}" in finished else None),
        )
        for variant in table.variants
        for column in table.columns
    }


def test_a_table_shows_measured_beside_printed_numbers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table = TABLES["supplement-3"]
    finished = {"softmax-classification-1", "softmax-classification-10", "prior-segmentation-100"}
    cells = cells_of("supplement-3", tmp_path / "results", finished)
    outcome = Outcome(failed={"prior-classification-1": 1}, left_out=["prior-classification-10"])
    assert not write_report(table, cells, {}, ["Settings that differ: x."], outcome, tmp_path)
    lines = (tmp_path / "supplement-3.md").read_text().splitlines()
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines if line[:1] == "|"}
    assert rows["softmax attention"] == ["50.00 ± 1.00", "50.00 ± 1.00", *["not run"] * 4]
    assert rows["softmax attention, printed"] == ["86.01 ± 0.68"] * 3 + ["45.65 ± 1.31"] * 3
    assert rows["PRIOR"] == ["failed", "failed", "not run", "not run", "not run", "50.00 ± 1.00"]
    assert rows["PRIOR, printed"] == ["86.16 ± 0.64"] * 3 + ["46.01 ± 1.03"] * 3
    assert "- Failed: prior-classification-1 (exit code 1); the command's last line says why." in lines
    assert "- Left out, since a step that they need failed: prior-classification-10." in lines
    assert "- Settings that differ: x." in lines
    assert "- Printed numbers: the supplement's table 3." in lines
    assert all(f"- {note}" in lines for note in table.differences)
    printed = capsys.readouterr().out
    assert "86.16 ± 0.64" in printed and "Table 3 of the supplement: The activation function" in printed
    found = json.loads((tmp_path / "supplement-3.json").read_text())
    cell = found["rows"]["softmax"]["classification-1"]
    assert (cell["mean"], cell["std"], cell["runs"], cell["printed"]) == (50.0, 1.0, 5, "86.01 ± 0.68")
    assert found["rows"]["prior"]["classification-1"]["mean"] is None
    assert found["rows"]["softmax"]["settings"] == ["model.attention=softmax"]


def test_a_complete_table_is_called_so(tmp_path: Path) -> None:
    names = {f"prior-{column.key}" for column in TABLES["1"].columns}
    cells = cells_of("1", tmp_path / "results", names)
    assert write_report(TABLES["1"], cells, {}, [], Outcome(), tmp_path)


def test_pictures_are_listed(tmp_path: Path) -> None:
    drawn = {
        "prior": step(tmp_path, "drawn", {}, "report.json"),
        "without-bank": step(tmp_path, "not drawn", None, "report.json"),
    }
    assert not write_report(TABLES["supplement-figures"], {}, drawn, [], Outcome(), tmp_path)
    text = (tmp_path / "supplement-figures.md").read_text()
    assert f"| PRIOR | {tmp_path / 'drawn' / 'index.html'} |" in text
    assert "| without the prototype bank | not drawn |" in text

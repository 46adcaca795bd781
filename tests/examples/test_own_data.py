"""The notebook runs in small, and its committed outputs are those of such a run."""

import copy
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.examples.notebook import NOTEBOOK, execute

CLASSES = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]


@pytest.fixture
def notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(notebook: Any, folder: Path, studies: int) -> Any:
    """A copy of the notebook, run in `folder` with so many studies."""
    made = copy.deepcopy(notebook)
    first = code(made)[0]
    first.source, count = re.subn(r"^STUDIES = \d+", f"STUDIES = {studies}", first.source)
    assert count == 1
    execute(made, folder)
    return made


def text(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def kinds(cell: Any) -> list[tuple[str, list[str]]]:
    """The types of a cell's outputs, and the formats that each has."""
    return [(output.output_type, sorted(output.get("data", {}))) for output in cell.outputs]


def check_outputs(notebook: Any) -> None:
    """Every cell ran, without an error, a warning or a path of the machine."""
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    for cell in code(notebook):
        assert all(output.output_type != "error" and output.get("name") != "stderr" for output in cell.outputs)
        shown = text(cell) + "".join(output.get("data", {}).get("text/plain", "") for output in cell.outputs)
        assert not re.search(r"(?<![\w.])/(?:\w[\w.-]*/)+|[A-Z]:\\|\x1b", shown), shown


def scores_of(notebook: Any) -> dict[str, float]:
    """The AUROCs that the notebook prints in the end."""
    (table,) = [text(cell) for cell in code(notebook) if text(cell).startswith("AUROC")]
    return {name: float(value) for name, value in re.findall(r"^(\w[\w ]*?) {2,}(\S+) +0\.50$", table, re.MULTILINE)}


def test_committed_outputs_are_whole_and_small(notebook):
    check_outputs(notebook)
    python = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {"kernelspec": python, "language_info": {"name": "python"}}
    assert all(not cell.metadata for cell in notebook.cells)
    assert list(scores_of(notebook)) == CLASSES
    assert NOTEBOOK.stat().st_size < 170_000


def test_the_table_is_made_and_understood(notebook, tmp_path):
    """The sections before the training."""
    titles = [index for index, cell in enumerate(notebook.cells) if cell.source.startswith("## 3.")]
    notebook.cells = notebook.cells[: titles[0]]
    made = run(notebook, tmp_path, 10)
    check_outputs(made)
    checked = next(text(cell) for cell in code(made) if "--check" in cell.source)
    for column in ("image", "report", "study", "patient", "view"):
        assert f"column {column}" in checked
    assert (tmp_path / "own_data/prepared/dataset.json").exists()


@pytest.mark.slow
def test_it_runs_twice(notebook, tmp_path):
    for _ in range(2):
        made = run(notebook, tmp_path, 240)
        check_outputs(made)
        scores = scores_of(made)
        assert list(scores) == CLASSES and all(0 <= value <= 1 for value in scores.values())
        assert list(map(kinds, code(made))) == list(map(kinds, code(notebook)))
    assert [path.name for path in tmp_path.iterdir()] == ["own_data"]

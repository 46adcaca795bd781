"""Every figure of the README is that of a file of measurements."""

import json
from pathlib import Path

import pytest

from tests.pages.blocks import page, page_names
from tests.pages.figures import untraced, wrong_figures

STEPS = "bench/results/steps.json"
FIGURE = f"<!-- figure: {STEPS}#/steps/0/ms 69.9 -->"
ROW = f"| a step | 69.9 ms | H200 | [steps.json]({STEPS}) |"


@pytest.mark.parametrize("name", page_names())
def test_figures_are_those_of_their_files(name: str) -> None:
    assert wrong_figures(page(name).text) == []


def test_everything_measured_on_the_front_page_has_a_file() -> None:
    section = page("README.md").section("Measured")
    assert section, "README.md has no heading `## Measured`"
    assert untraced(section) == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bench/results").mkdir(parents=True)
    (tmp_path / STEPS).write_text(
        json.dumps({"steps": [{"ms": 69.94, "a/b": 1831.4}], "plain": 1900, "times": [2, 9, 4], "name": "x"})
    )
    return tmp_path


@pytest.mark.parametrize(
    ("figure", "fault"),
    [
        (f"{STEPS}#/steps/0/ms 69.9", ""),
        (f"{STEPS}#/steps/0/ms 70", ""),
        (f"{STEPS}#/steps/0/a~1b 1,831", ""),
        (f"{STEPS}#/plain / {STEPS}#/steps/0/ms 27.2×", ""),
        (f"{STEPS}#/steps/0/ms / 1000 0.07", ""),
        (f"{STEPS}#/times 4", ""),
        (f"{STEPS}#/steps/0/ms 69.8", "is 69.94, not 69.8"),
        (f"{STEPS}#/steps/0/ms 69.90", "is 69.94, not 69.90"),
        (f"{STEPS}#/steps/1/ms 69.9", "can't be read"),
        (f"{STEPS}#/steps/0/s 69.9", "can't be read"),
        (f"{STEPS}#/steps 1", "can't be read"),
        (f"{STEPS}#/name 1", "can't be read"),
        ("bench/results/other.json#/a 1", "can't be read"),
        ("69.9", "must be <!-- figure"),
        (f"{STEPS}#/steps/0/ms 69.9 --> <!-- figure 2", "must be <!-- figure"),
    ],
)
def test_a_wrong_figure_is_found(figure: str, fault: str, root: Path) -> None:
    found = wrong_figures(f"| a | 1 <!-- figure: {figure} --> |\n", root)
    assert bool(found) == bool(fault) and all(fault in line for line in found), found


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (f"{ROW}\n\n{FIGURE}\n", ""),
        (ROW.replace("ms", f"ms {FIGURE}"), ""),
        (ROW, "69.9 has no figure of the row's files"),
        (f"{ROW.replace('69.9', '70.1')}\n\n{FIGURE}\n", "70.1 has no figure of the row's files"),
        (f"{ROW.replace('69.9', '70.1')}\n\n{FIGURE}\n", f"69.9 of {STEPS}#/steps/0/ms is not shown"),
        (f"{ROW.replace('69.9', '169.9')}\n\n{FIGURE}\n", "is not shown"),
        (f"{ROW.replace('a step', '2 times a step')}\n\n{FIGURE}\n", "2 has no figure of the row's files"),
        (f"{ROW.replace('69.9 ms', 'fast')}\n\n{FIGURE}\n", "it has no number with a unit"),
        (
            f"{ROW.replace(f'[steps.json]({STEPS})', 'measured')}\n\n{FIGURE}\n",
            "no link to a file below bench/results/",
        ),
        (f"{ROW.replace('steps.json)', 'none.json)')}\n\n{FIGURE}\n", "there is no bench/results/none.json"),
        (f"{ROW.replace('steps.json)', 'none.json)')}\n\n{FIGURE}\n", "69.9 has no figure of the row's files"),
        ("", "no table with rows"),
    ],
)
def test_a_row_without_its_file_is_found(row: str, fault: str, root: Path) -> None:
    found = untraced(f"Text.\n\n| what | figure | machine | file |\n| --- | ---: | --- | --- |\n{row}\n\nMore.\n", root)
    assert bool(found) == bool(fault) and (not fault or any(fault in line for line in found)), found


def test_a_figure_in_a_sentence_needs_its_source(root: Path) -> None:
    table = f"| what | figure | machine | file |\n| --- | --- | --- | --- |\n{ROW}\n\n{FIGURE}\n\n"
    assert untraced(f"{table}It took 6.3 minutes\non two cores.\n", root)
    assert not untraced(f"{table}It took 6.3 minutes ([how](docs/demo.md)).\n", root)
    assert not untraced(f"{table}Two commands, Python 3.11 and 48 studies.\n", root)

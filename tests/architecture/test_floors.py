"""The floors of the package: modules import only from lower floors, also inside functions."""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.architecture.imports import PACKAGE, Import, imports, modules

ROOT = Path(__file__).parents[2]

# Lowest first. Packages of one floor do not import each other.
FLOORS = (
    ("errors", "spelling", "version"),
    ("files", "console", "processes", "tables"),
    ("config", "radiology", "hardware", "plotting"),
    ("extension",),
    ("kernels", "csrc"),
    ("ops",),
    ("bench", "batch"),
    ("data", "phantom"),
    ("prepare", "model"),
    ("training",),
    ("weights",),
    ("evaluation",),
    ("downstream", "pictures"),
    ("kernel_report", "measure", "reproduce"),
    ("api",),
    ("",),  # prior_fast itself, which has api's `PRIOR`
    ("cli",),
)
# Scripts and tests in bench/, besides the cases: nothing imports them.
SCRIPTS = re.compile(r"prior_fast\.bench\.((gpu|demo)\..+|conftest|test_.+)")


def room(module: str) -> str:
    """The top-level package or module that a module belongs to."""
    return module.removeprefix(PACKAGE).lstrip(".").split(".")[0]


def upward(found: list[Import]) -> list[str]:
    """Imports that do not point to a lower floor."""
    level = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    return [
        f"{each.where}: {each.importer} imports {each.imported}"
        for each in found
        if room(each.importer) != room(each.imported)
        and not SCRIPTS.fullmatch(each.importer)
        and level[room(each.importer)] <= level[room(each.imported)]
    ]


def private(found: list[Import]) -> list[str]:
    """Imports of private modules or names (with a leading underscore) from another package."""
    return [
        f"{each.where}: {each.imported} {each.name}"
        for each in found
        if re.search(r"\._[^_]", f"{each.imported}.{each.name}") and room(each.importer) != room(each.imported)
    ]


def test_every_room_is_on_one_floor() -> None:
    rooms = {room(name) for name in modules(ROOT)}
    listed = [name for floor in FLOORS for name in floor]
    assert sorted(listed) == sorted(rooms)


def test_imports_point_downward() -> None:
    assert upward(imports(ROOT)) == []


def test_no_private_module_is_imported_from_outside() -> None:
    assert private(imports(ROOT)) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph: dict[str, set[str]] = {}
    for each in imports(ROOT):
        # Importing a module also imports its package; only the package's own imports count here.
        if not f"{each.importer}.".startswith(f"{each.imported}."):
            graph.setdefault(each.importer, set()).add(each.imported)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these modules import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    "line",
    [
        "from prior_fast.training.step import StageTrainer",
        "import prior_fast.training.step",
        "def late():\n    from prior_fast.training import step",
        "import importlib\n\n\ndef late(name):\n    return importlib.import_module(f'prior_fast.training.{name}')",
        "from ..training import step",
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, line: str) -> None:
    for name, text in (("training/__init__.py", ""), ("training/step.py", ""), ("ops/planted.py", f"{line}\n")):
        (tmp_path / PACKAGE / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / PACKAGE / name).write_text(text, encoding="utf-8")
    (found,) = upward(imports(tmp_path))
    assert "ops/planted.py" in found and "prior_fast.training" in found


def test_a_private_module_imported_from_outside_is_found(tmp_path: Path) -> None:
    planted = "from prior_fast.ops._hidden import x\nfrom prior_fast.ops.shown import _y\n"
    for name, text in (("ops/_hidden.py", ""), ("ops/shown.py", ""), ("data/planted.py", planted)):
        (tmp_path / PACKAGE / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / PACKAGE / name).write_text(text, encoding="utf-8")
    assert len(private(imports(tmp_path))) == 2

"""docs/architecture.md tells the truth: its floors are those of the test, and what its paths name is there."""

import ast
import re
from pathlib import Path

from tests.architecture.imports import PACKAGE
from tests.architecture.test_floors import FLOORS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def test_the_picture_has_the_floors() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", PAGE, re.MULTILINE)
    shown: dict[int, set[str]] = {}
    for floor, cell in rows:
        names = {name.rstrip("/") for name in re.findall(r"`([^`]+)`", cell)}
        shown.setdefault(int(floor), set()).update("" if name == PACKAGE else name for name in names)
    assert shown == {number: set(floor) for number, floor in enumerate(FLOORS)}
    assert [int(floor) for floor, _ in rows] == sorted((int(floor) for floor, _ in rows), reverse=True)


def defined(path: Path) -> set[str]:
    """The functions, classes and methods of a module."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_what_the_paths_name_is_there() -> None:
    steps = re.findall(r"^\d+\. (.+)$", PAGE, re.MULTILINE)
    assert len(steps) > 30
    for step in steps:
        first, *more = re.findall(r"`([^`]+)`", step)
        file, function = first.split(": ")
        names = defined(ROOT / file)
        assert function in names, step
        # Further functions of the same file are named alone; files and settings have a dot and small letters before it.
        others = [name for name in more if re.fullmatch(r"[A-Z]\w+\.\w+|[a-z]+\d|load_\w+", name)]
        assert names.issuperset(others), step


def test_the_files_that_the_pages_name_are_there() -> None:
    """Paths in backticks on the pages for developers, and what links between pages point to."""
    docs = [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("bench/results/*/*.md")]
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *docs]
    missing = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        paths = re.findall(r"`((?:prior_fast|kernels|csrc|bench|tests|docs|locks)/[\w./-]+)`(?!:)", text)
        missing += [f"{page.name}: {path}" for path in paths if not (ROOT / path).exists() and "<" not in path]
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            if not (page.parent / target).exists():
                missing.append(f"{page.name}: link to {target}")
    assert missing == []

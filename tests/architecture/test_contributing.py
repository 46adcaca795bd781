"""CONTRIBUTING.md, followed word for word in a copy of the checkout."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COPIED = (
    "prior_fast",
    "kernels",
    "csrc",
    "bench",
    "tests",
    "locks",
    "docs",
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
)
BLOCK = re.compile(r"(?:`(?P<path>[\w./]+)`:\n\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def section(title: str) -> str:
    """The part of the page under a heading."""
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found


def copy_checkout(folder: Path) -> Path:
    """The parts of the checkout that a developer works on, links as links, and `prior-fast` on the path of commands."""
    skipped = shutil.ignore_patterns("__pycache__", "results")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, symlinks=True, ignore=skipped)
        else:
            shutil.copy(source, folder / name)
    programs = folder / "programs"
    programs.mkdir()
    for name, words in (("python", ""), ("prior-fast", " -m prior_fast.cli.main")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    return folder


def follow(text: str, folder: Path) -> list[str]:
    """Do what the blocks say, in their order; the kinds of the blocks."""
    path = f"{folder / 'programs'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    kinds = []
    for block in BLOCK.finditer(text):
        kinds.append(block["kind"])
        if block["path"]:
            (folder / block["path"]).write_text(block["text"], encoding="utf-8")
            continue
        words = {"sh": ["bash", "-eu", "-c", block["text"]], "diff": ["git", "apply", "--unidiff-zero", "-"]}[
            block["kind"]
        ]
        done = subprocess.run(words, input=block["text"], capture_output=True, text=True, cwd=folder, env=environment)
        assert done.returncode == 0, f"{block['text']}\n{done.stdout}\n{done.stderr}"
    return kinds


def check_style(text: str, folder: Path) -> None:
    """The files that the blocks wrote pass the linter, and import downward."""
    written = [block["path"] for block in BLOCK.finditer(text) if block["path"]]
    for words in (
        ["ruff", "check", "--no-cache", *written],
        ["pytest", "-p", "no:cacheprovider", "tests/architecture/test_floors.py"],
    ):
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
        assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_the_page_on_an_op(tmp_path: Path) -> None:
    folder = copy_checkout(tmp_path)
    assert follow(section("An op"), folder) == ["sh", "diff", "python", "sh"]
    rows = (folder / "bench-kernels/kernels.md").read_text(encoding="utf-8")
    assert "segment_total" in rows and (folder / "report/report.json").is_file()
    check_style(section("An op"), folder)


def test_the_page_on_a_competitor(tmp_path: Path) -> None:
    folder = copy_checkout(tmp_path)
    assert follow(section("A competitor"), folder) == ["diff", "sh"]
    report = json.loads((folder / "bench-competitor/kernels.json").read_text(encoding="utf-8"))
    rows = {(row["who"], row["direction"]) for row in report["rows"]}
    assert {("torch.segment_reduce", direction) for direction in ("forward", "forward+backward")} <= rows
    assert not [each for each in report["problems"] if "segment_reduce" in str(each)]


def test_the_page_on_a_raw_dataset(tmp_path: Path) -> None:
    pytest.importorskip("pydicom", reason="the tests of labelled datasets write DICOM files")
    folder = copy_checkout(tmp_path)
    assert follow(section("A raw dataset"), folder) == ["python", "python", "sh"]
    check_style(section("A raw dataset"), folder)


def test_the_page_on_a_dataset_with_reports(tmp_path: Path) -> None:
    folder = copy_checkout(tmp_path)
    assert follow(section("A dataset of images with reports"), folder) == ["python", "python", "sh"]
    check_style(section("A dataset of images with reports"), folder)
    module = folder / "prior_fast/prepare/studies/layouts/riverside.py"
    assert len(module.read_text(encoding="utf-8").splitlines()) < 100

"""The commands and the Python code of each page run, in the order of the page."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.pages.blocks import Block, page, page_names
from tests.pages.followed import is_followed
from tests.pages.known import is_whole
from tests.pages.rules import not_run
from tests.pages.sandbox import Sandbox
from tests.pages.shell import Command, commands

# The pages that a beginner follows; the rest takes minutes.
FAST = ("README.md", "docs/start.md")
NEEDS_GPU = re.compile(r"\.cuda\(|device=\"cuda")


def steps(name: str, folder: Path) -> list[Command | Block]:
    """What runs of a page, in its order: commands of blocks and between backticks, and blocks of Python."""
    found: list[tuple[int, int, Command | Block]] = []
    for block in page(name).blocks():
        if is_followed(block):
            continue
        if block.language == "sh":
            inner = folder / str(block.line)
            inner.mkdir()
            found += [(block.line, number, each) for number, each in enumerate(commands(block, inner))]
        elif block.language == "python":
            found.append((block.line, 0, block))
    for code in page(name).codes():
        if is_whole(code.text):
            found.append((code.line, 0, Command(code, tuple(code.text.split()))))
    return [each for _, _, each in sorted(found, key=lambda step: step[:2])]


def pages() -> list[object]:
    """The pages that have something to run; those with commands are slow, except the fast ones."""
    found: list[object] = []
    for name in page_names():
        if name.startswith("bench/results/"):
            continue  # records of measurements, whose commands are those of docs/benchmarks.md
        languages = {block.language for block in page(name).blocks() if not is_followed(block)}
        slow = name not in FAST and ("sh" in languages or any(is_whole(code.text) for code in page(name).codes()))
        if slow or languages & {"sh", "python"}:
            found.append(pytest.param(name, marks=[pytest.mark.slow] if slow else []))
    return found


@pytest.mark.parametrize("name", pages())
def test_a_page_runs(name: str, artefact: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "recorded").mkdir()
    (tmp_path / "sandbox").mkdir()
    sandbox = Sandbox(tmp_path / "sandbox", artefact)
    for step in steps(name, tmp_path / "recorded"):
        if isinstance(step, Block):
            if torch.cuda.is_available() or not NEEDS_GPU.search(step.text):
                sandbox.python(step)
        elif not not_run(step.words):
            began = time.perf_counter()
            try:
                sandbox.run(step.words)
            except Exception as error:
                raise AssertionError(f"{step.block.place}: {step}: {error}") from error
            print(f"{time.perf_counter() - began:6.1f} s  {step.block.place}  {step}")

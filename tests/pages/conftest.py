"""Tests of the pages need a Markdown parser, and the artefacts that the commands of the pages read."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

# A machine that tests kernels may lack the packages of the pages.
collect_ignore_glob = [] if find_spec("markdown_it") and find_spec("pydicom") else ["test_*.py"]


@pytest.fixture(scope="session")
def artefact(shared_folder: Callable[[str, Callable[[Path], object]], Path]) -> Callable[[str], Path]:
    """`artefact(kind)` -> the path of an artefact of tests/pages/artefacts.py, made when it is first asked for."""
    from tests.pages.artefacts import make

    def get(kind: str) -> Path:
        return shared_folder(f"pages-{kind}", lambda folder: make(kind, folder / kind, get)) / kind

    return get


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small steps are faster in one thread, most of all beside other programs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

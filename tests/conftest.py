"""Fixtures that every test may use."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Before anything imports Triton: its kernels then run on CPUs.
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parents[1]


def _bundle(name: str) -> Path:
    path = ROOT.parent / "shared" / "data" / name
    if not path.is_dir():
        pytest.skip(f"the bundle {name} is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def real_cxr() -> Path:
    """Real X-rays and reports in MIMIC-CXR's layout."""
    return _bundle("real_cxr")


@pytest.fixture(scope="session")
def real_cxr_broken() -> Path:
    """Six studies, each broken in one way, to be laid over `real_cxr`."""
    return _bundle("real_cxr_broken")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recorded numbers."""
    return ROOT / "tests" / "golden"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator seeded by the test's own name: fresh for each test, the same in each run."""
    return np.random.default_rng(abs(hash_name(request.node.nodeid)))


def hash_name(name: str) -> int:
    return int.from_bytes(name.encode()[-8:], "little")


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of 40 made-up studies: 26 to train, 6 to validate, 8 to test."""
    from prior_fast.cli.main import main

    root = tmp_path_factory.mktemp("small")
    assert main(["phantom", "--out", str(root / "phantom"), "--studies", "48", "--seed", "5", "--size", "256"]) == 0
    assert main(["prepare", "mimic", "--images", str(root / "phantom"), "--out", str(root / "prepared")]) == 0
    return root / "prepared"

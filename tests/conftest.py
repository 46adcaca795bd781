"""Fixtures that every test may use."""

import copy
import os
import platform
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock

if not torch.cuda.is_available():
    # Must be set before Triton is imported; its kernels then run on CPUs.
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parents[1]
# A machine that tests kernels may lack packages that only some tasks need.
NEEDS = {
    "downstream": "segmentation_models_pytorch",
    "prepare/labelled": "pydicom",
    "radiology/test_dicom.py": "pydicom",
    "phantom/test_layouts.py": "pydicom",
    "evaluation/test_labelled_command.py": "pydicom",
    "examples/test_own_data.py": "nbclient",
}
LEFT_OUT = {place: package for place, package in NEEDS.items() if find_spec(package) is None}


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Skip files of tests whose package is not installed; None leaves the decision to other plugins."""
    here = collection_path.relative_to(ROOT / "tests").as_posix() if ROOT / "tests" in collection_path.parents else ""
    return True if here in LEFT_OUT else None


def pytest_report_header() -> list[str]:
    """The versions that are tested, and the tests that were left out."""
    from prior_fast.hardware.versions import PACKAGES, package_version

    versions = [f"python {platform.python_version()}", *(f"{name} {package_version(name)}" for name in PACKAGES)]
    left_out = [f"left out: tests/{place}, since {package} is not installed" for place, package in LEFT_OUT.items()]
    return [", ".join(versions), *left_out]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Print the header, since -q in addopts hides pytest's own."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not reporter.showheader:
        for line in pytest_report_header():
            reporter.write_line(line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests that need a GPU if there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("wants a GPU")


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


@pytest.fixture
def gradients_by_name() -> Callable[[torch.nn.Module], dict[str, torch.Tensor]]:
    """The gradients of a module's parameters under the names of its state dict, which has joined layers separately."""

    def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
        twin = copy.deepcopy(module)
        for parameter, other in zip(module.parameters(), twin.parameters(), strict=True):
            other.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        return twin.state_dict()

    return gradients


@pytest.fixture(scope="session")
def shared_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Callable[[Path], Any]], Path]:
    """`shared_folder(name, make)` -> a folder that `make` has filled, once for all processes that run the tests.

    The folder is read-only: a test that changes it needs a copy.
    """
    own = tmp_path_factory.getbasetemp()
    common = own.parent if hasattr(request.config, "workerinput") else own  # a worker of pytest-xdist has its own

    def share(name: str, make: Callable[[Path], Any]) -> Path:
        folder, made = common / f"shared-{name}", common / f"shared-{name}.made"
        with FileLock(common / f"shared-{name}.lock"):
            if not made.exists():
                # A failed `make` may have left files.
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return share


@pytest.fixture(scope="session")
def small_store(shared_folder: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """A prepared dataset of the 45 studies with a frontal view and four sentences among 48 made-up ones."""
    from prior_fast.cli.main import main

    def make(root: Path) -> None:
        phantom = str(root / "phantom")
        assert main(["phantom", "--out", phantom, "--studies", "48", "--seed", "5", "--size", "256"]) == 0
        assert main(["prepare", "mimic", "--images", phantom, "--out", str(root / "prepared")]) == 0

    return shared_folder("small", make) / "prepared"

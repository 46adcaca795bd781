"""Building csrc/, and the handling of a library that is missing, stale or broken."""

import json
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prior_fast import extension, ops
from prior_fast.csrc import build as building
from prior_fast.errors import RunError, UsageError
from prior_fast.ops import linear_sum_assignment as lsa

# The function hides the module of the same name.
LSA = sys.modules[lsa.__module__]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Libraries are built in, and loaded from, a folder of the test; no warning has been printed yet."""
    folder = tmp_path / "_C"
    monkeypatch.setattr(extension, "FOLDER", folder)
    monkeypatch.setattr(extension, "RECORD", folder / "build.json")
    monkeypatch.setattr(LSA, "_warned", set())
    monkeypatch.delenv("PRIOR_FAST_BACKEND", raising=False)
    extension.unavailable.cache_clear()
    yield folder
    extension.unavailable.cache_clear()


@pytest.fixture
def own_sources(own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources that a test may change."""
    copy = tmp_path / "csrc"
    shutil.copytree(extension.SOURCES, copy)
    monkeypatch.setattr(extension, "SOURCES", copy)
    return copy


@pytest.fixture(scope="module")
def built(shared_folder: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    """A folder with the CPU library."""

    def make(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(extension, "FOLDER", root / "_C")
            patch.setattr(extension, "RECORD", root / "_C/build.json")
            outcome = building._build_cpu(force=False)
        assert outcome.built and outcome.line.startswith("built: C++ with")

    return shared_folder("cpu-library", make) / "_C"


needs_cxx = pytest.mark.skipif(building.find_cxx() is None, reason="no C++ compiler")


@needs_cxx
def test_the_cpu_library_is_built_used_and_left_alone(built: Path, own_folder: Path) -> None:
    shutil.copytree(built, own_folder)
    assert extension.unavailable("cpu") is None
    built_at = extension.library_path("cpu").stat().st_mtime_ns
    assert building._build_cpu(force=False).line.startswith("up to date")
    assert extension.library_path("cpu").stat().st_mtime_ns == built_at
    assert not list(own_folder.glob(".*"))


@needs_cxx
def test_an_error_in_a_source_leaves_the_old_library(built: Path, own_folder: Path, own_sources: Path) -> None:
    shutil.copytree(built, own_folder)
    assert extension.unavailable("cpu") is None
    before = extension.library_path("cpu").read_bytes()
    (own_sources / "assignment_cpu.cpp").write_text("int broken(;\n")
    with pytest.raises(RunError, match=r"csrc does not compile:\n.*assignment_cpu.cpp:1.*error"):
        building._build_cpu(force=False)
    assert extension.library_path("cpu").read_bytes() == before
    extension.unavailable.cache_clear()
    assert extension.unavailable("cpu") == "the cpu library is older than its sources: prior-fast build"


def test_a_missing_library_is_said_once_and_scipy_serves(own_folder: Path) -> None:
    cost = torch.tensor([[2.0, 1.0], [0.0, 5.0]])
    with pytest.warns(RuntimeWarning, match="SciPy solves .* the cpu library is not built: prior-fast build") as caught:
        assert lsa(cost).tolist() == [1, 0]
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lsa(cost).tolist() == [1, 0]
        assert ops.match_prototypes(cost[None], cost[:1], torch.tensor([0, 1])).shape == (1, 2)
    with pytest.raises(ValueError, match=r"backend='cpp' can't serve this call. .*cpp: the cpu library is not built"):
        lsa(cost, backend="cpp")


def test_who_asks_for_scipy_is_told_nothing(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lsa(torch.zeros(2, 2), backend="scipy")
        monkeypatch.setenv("PRIOR_FAST_BACKEND", "scipy")
        lsa(torch.zeros(2, 2))


def test_what_is_no_library_is_said(own_folder: Path) -> None:
    own_folder.mkdir()
    extension.library_path("cpu").write_bytes(b"no library")
    extension.RECORD.write_text("{")
    assert extension.unavailable("cpu") == "the cpu library is older than its sources: prior-fast build"
    extension.RECORD.write_text(json.dumps({"cpu": {"sources": extension.source_hash("cpu")}}))
    extension.unavailable.cache_clear()
    assert re.match(r"the cpu library does not load \(.+\): prior-fast build", extension.unavailable("cpu") or "")
    with pytest.warns(RuntimeWarning, match="does not load"):
        assert lsa(torch.eye(2)).tolist() == [1, 0]


def test_without_compilers_nothing_is_built(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(building, "_pip_toolkits", list)
    for name in ("CXX", "NVCC", "CUDA_HOME"):
        monkeypatch.delenv(name, raising=False)
    outcomes = building.build()
    assert [outcome.built for outcome in outcomes] == [False, False]
    assert "no C++ compiler" in outcomes[0].line and "SciPy" in outcomes[0].line
    assert "SciPy" in outcomes[1].line
    assert not own_folder.exists()


def test_a_compiler_that_is_not_there(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    assert building.find_cxx() is None


@pytest.mark.parametrize("names", [["80"], ["sm80"], ["sm_8x"], []])
def test_wrong_architectures(names: list[str]) -> None:
    with pytest.raises(UsageError, match="--arch"):
        building.build(names)


def test_headers_and_sources_decide_what_is_stale(own_sources: Path) -> None:
    before = {kind: extension.source_hash(kind) for kind in extension.KINDS}
    (own_sources / "assignment_cpu.cpp").write_text("// other\n")
    assert extension.source_hash("cpu") != before["cpu"] and extension.source_hash("cuda") == before["cuda"]
    (own_sources / "assignment.h").write_text("// other\n")
    assert extension.source_hash("cuda") != before["cuda"]


@pytest.mark.skipif(building.find_nvcc() is None or torch.version.cuda is None, reason="no nvcc, or torch without CUDA")
def test_no_kernel_spills_or_uses_local_memory() -> None:
    """ptxas's report of the library that `make` built, for both generations of GPU."""
    outcome = building._build_cuda(building.DEFAULT_ARCHITECTURES, force=False)
    assert outcome.built, outcome.line
    assert extension.unavailable("cuda") is None
    kernels = extension.record()["cuda"]["kernels"]
    for architecture in building.DEFAULT_ARCHITECTURES:
        names = [kernel["name"] for kernel in kernels if kernel["architecture"] == architecture]
        assert sum("assignment_warp_kernel" in name for name in names) == 6  # 32, 64, 128 columns, float32 and float64
        assert sum("assignment_block_kernel" in name for name in names) == 4  # 1,024 and 4,096 columns
        assert sum("matching_kernel" in name for name in names) == 12  # 3 metrics, 4 dtypes
    for kernel in kernels:
        assert kernel["registers"] > 0
        assert kernel["stack"] == kernel["spill_stores"] == kernel["spill_loads"] == 0, kernel
        # Threads of a block times registers of a thread: a multiprocessor has 65,536.
        threads = 1024 if "block_kernel" in kernel["name"] else 512
        assert kernel["registers"] * threads <= 65536, kernel

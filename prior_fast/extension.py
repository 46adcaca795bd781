"""Finds and loads the compiled libraries of csrc/, and reports why one can't be used.

`prior-fast build` compiles them into `_C/` and records there what they were built from. Importing this module neither
imports torch nor fails. If a library is missing, older than its sources or does not load, `unavailable` returns the
reason as text.
"""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
SOURCES = PACKAGE / "csrc"
FOLDER = PACKAGE / "_C"
RECORD = FOLDER / "build.json"
# The sources of each library. Both also use all headers.
KINDS = {"cpu": ("*_cpu.cpp",), "cuda": ("*_cuda.cpp", "*_cuda.cu")}


def library_path(kind: str) -> Path:
    """The path of the built library of `kind`, "cpu" or "cuda"."""
    return FOLDER / f"{kind}.so"


def source_files(kind: str) -> list[Path]:
    """The source files that nvcc or the C++ compiler compiles for the library of `kind`."""
    return sorted(path for pattern in KINDS[kind] for path in SOURCES.glob(pattern))


def source_hash(kind: str) -> str:
    """SHA-256 of the names and contents of all files that determine the library: sources, headers and build.py."""
    digest = hashlib.sha256()
    for path in [*source_files(kind), *sorted(SOURCES.glob("*.h")), SOURCES / "build.py"]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def record() -> dict[str, Any]:
    """The record that `prior-fast build` wrote, by kind; empty if nothing was built."""
    try:
        found = json.loads(RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.cache
def unavailable(kind: str) -> str | None:
    """Load the library of `kind`. Returns None on success, else the reason. The result is kept for the process."""
    import torch

    if kind == "cuda" and torch.version.cuda is None:
        return "torch is a CPU build"
    path = library_path(kind)
    if not path.is_file():
        return f"the {kind} library is not built: prior-fast build"
    if record().get(kind, {}).get("sources") != source_hash(kind):
        return f"the {kind} library is older than its sources: prior-fast build"
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        return f"the {kind} library does not load ({_first_line(error)}): prior-fast build"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

"""The compiled libraries of csrc/: where they lie, whether they can be used, and loading them.

`prior-fast build` compiles them into `_C/`, beside a record of what they were built from. Nothing here imports torch at
the top or fails at import: a library that is missing, older than its sources or does not load is a reason in words.
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
# What each library is compiled from, besides the headers, which both share.
KINDS = {"cpu": ("*_cpu.cpp",), "cuda": ("*_cuda.cpp", "*_cuda.cu")}


def library_path(kind: str) -> Path:
    """Where the library of `kind`, "cpu" or "cuda", lies once it is built."""
    return FOLDER / f"{kind}.so"


def source_files(kind: str) -> list[Path]:
    """What nvcc or the C++ compiler is given for the library of `kind`."""
    return sorted(path for pattern in KINDS[kind] for path in SOURCES.glob(pattern))


def source_hash(kind: str) -> str:
    """A digest of all that makes the library: its sources, the headers and how they are compiled; names included."""
    digest = hashlib.sha256()
    for path in [*source_files(kind), *sorted(SOURCES.glob("*.h")), SOURCES / "build.py"]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def record() -> dict[str, Any]:
    """What `prior-fast build` wrote down, by kind; empty where nothing was built."""
    try:
        found = json.loads(RECORD.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@functools.cache
def unavailable(kind: str) -> str | None:
    """None once the library of `kind` is loaded, else why it can't be used. Found out once in a process."""
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

"""Sizes and SHA-256 of the files of a folder: written with it, and compared when it is read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.files.atomic import sha256


def file_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """`bytes` and `sha256` of each file in the folder and below, by its path relative to the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _facts(path) for path in files}


def check_file(folder: Path, facts: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Compare a file with its facts; a file that `facts` does not have is not compared.

    Raises:
        UsageError: it is missing, or was changed or damaged.
    """
    path = folder / name
    if not path.is_file():
        raise UsageError(f"{path} is missing")
    if name in facts and _facts(path) != facts[name]:
        raise UsageError(f"{path} was changed or damaged: its size or SHA-256 is not the one that was written")


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256(path)}

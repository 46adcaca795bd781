"""Checks of a dataset before its use: the entries of dataset.json, and the files that it lists."""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from prior_fast.console import progress
from prior_fast.data.dataset_folder import INFO_FILE, Verify
from prior_fast.errors import UsageError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MEGABYTE = 1_000_000
# Bytes that are hashed before the progress bar advances.
_CHUNK = 8 * _MEGABYTE


class Entry(NamedTuple):
    """What an entry of dataset.json must be, in words and as a test."""

    words: str
    fits: Callable[[Any], bool]


def is_count(value: Any) -> bool:
    """Whether a value of a JSON file is a whole number of 0 or more."""
    return type(value) is int and value >= 0


def _is_level(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, str) for x in value) and len(set(value)) == len(value)


COUNT = Entry("a whole number of 0 or more", is_count)
LEVEL = Entry("a number from 0 to 1", _is_level)
TEXT = Entry("a text", lambda value: isinstance(value, str))
SWITCH = Entry("true or false", lambda value: isinstance(value, bool))
NAMES = Entry("a list of different texts", _is_names)
OBJECT = Entry("an object", lambda value: isinstance(value, dict))


def check_entries(root: Path, info: Mapping[str, Any], wanted: Mapping[str, Entry]) -> None:
    """Refuse a dataset.json whose entries are missing or of another type.

    wanted: for each key what its value must be; "a.b" is the key b of the object at a.

    Raises:
        UsageError: the message names the file and the key.
    """
    for key, entry in wanted.items():
        value: Any = info
        for part in key.split("."):
            if not isinstance(value, dict) or part not in value:
                raise _damaged(root, f"has no entry {key!r}")
            value = value[part]
        if not entry.fits(value):
            raise _damaged(root, f"has {key}={str(value)[:80]!r}, which is not {entry.words}")


def check_listed(root: Path, info: Mapping[str, Any], needed: Iterable[str]) -> None:
    """Refuse a list of files that leads outside the dataset's folder, lacks a file that is read, or has no sizes.

    Raises:
        UsageError: the message names dataset.json and the entry.
    """
    check_entries(root, info, {"files": OBJECT})
    for name, facts in info["files"].items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path == PurePosixPath():
            raise _damaged(root, f"lists the file {name!r} in 'files', which is not inside the dataset's folder")
        if not isinstance(facts, dict) or not is_count(facts.get("bytes")):
            raise _damaged(root, f"has no size of {name} in 'files'")
        digest = facts.get("sha256", "0" * 64)
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise _damaged(root, f"has a sha256 of {name} in 'files' that is none")
    for name in needed:
        if name not in info["files"]:
            raise _damaged(root, f"does not list {name} in 'files'")


def check_files(root: Path, info: Mapping[str, Any], verify: Verify) -> None:
    """Compare the files of a dataset with its dataset.json, whose list `check_listed` accepted.

    Raises:
        UsageError: a file is missing, has another size, or with verify="full" another SHA-256. The message names the
            file.
    """
    files = info["files"]
    for name, facts in files.items():
        path = root / name
        if not path.is_file():
            raise UsageError(f"{path} is missing; prepare the dataset again")
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise UsageError(f"{path} has {size} bytes, not {facts['bytes']}; prepare the dataset again")
        if verify == "full" and "sha256" not in facts:
            raise _damaged(root, f"has no sha256 of {name} in 'files', which verify=full compares")
    if verify != "full":
        return
    with progress() as bar:
        shown = bar.add_task("verify (MB)", total=sum(facts["bytes"] for facts in files.values()) // _MEGABYTE)
        done = 0
        for name, facts in files.items():
            digest = hashlib.sha256()
            with (root / name).open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    done += len(chunk)
                    bar.update(shown, completed=done // _MEGABYTE)
            if digest.hexdigest() != facts["sha256"]:
                raise UsageError(
                    f"{root / name} was changed (its SHA-256 is not that in {INFO_FILE}); prepare the dataset again"
                )


def _damaged(root: Path, what: str) -> UsageError:
    return UsageError(f"{root / INFO_FILE} {what}; prepare the dataset again")

"""Output folders: of one kind each, of one process at a time, and without what killed processes left."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.files.atomic import recover, remove_folder, replaceable, unfinished, write_json
from prior_fast.files.lock import lock
from prior_fast.files.space import explained
from prior_fast.version import __version__

KIND_FILE = "kind.json"
FORMAT = "prior-fast-folder"
LOCK_FILE = ".lock"

# Kinds of folders in which a command writes file by file, and what a message calls them.
KINDS = {
    "run": "a training run",
    "evaluation": "results of an evaluation",
    "fine-tuning": "results of fine-tuning",
    "pictures": "pictures of a model",
    "reproduction": "results of `prior-fast reproduce`",
}
DATASET = "a prepared dataset"
# Files by which folders are known that have no mark. The first that fits decides.
_KNOWN_BY = (
    ("dataset.json", DATASET),
    ("checkpoint.json", "a checkpoint"),
    ("checkpoints", "run"),
    ("log.jsonl", "run"),
    ("settings.json", "fine-tuning"),
    ("index.html", "pictures"),
    ("text_encoder", "exported encoders"),
)


def check_kind(folder: Path, kind: str, option: str = "--out") -> Path:
    """Refuse a folder that a command of `kind` must not write into; nothing is changed.

    Returns:
        The folder, symbolic links followed.

    Raises:
        UsageError: it is a file, is not writable, or holds something of another kind.
    """
    resolved = folder.resolve()
    check_writable(resolved, f"{option} {folder}")
    found = kind_of(resolved)
    if found is not None and found != kind:
        raise UsageError(f"{option} {folder} holds {KINDS.get(found, found)}: give another folder")
    return resolved


def kind_of(folder: Path) -> str | None:
    """What a folder holds: a key of KINDS or, for what is not written in place, words. None if it is not known.

    Raises:
        UsageError: the mark of the folder is damaged.
    """
    try:
        mark = json.loads((folder / KIND_FILE).read_text(encoding="utf-8"))
        if mark["format"] == FORMAT:
            return str(mark["kind"])
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / KIND_FILE} can't be read ({error!r}): remove it, or give another folder") from None
    return next((kind for name, kind in _KNOWN_BY if (folder / name).exists()), None)


def mark_folder(folder: Path, kind: str) -> None:
    """Write what kind of folder it is, unless that is written already. `claim_folder` does this too."""
    if not (folder / KIND_FILE).exists():
        write_json(folder / KIND_FILE, {"format": FORMAT, "kind": kind, "version": __version__})


@contextmanager
def claim_folder(folder: Path, kind: str, option: str = "--out") -> Iterator[Path]:
    """Hold a folder in which files are written one by one: made and marked if it is new, cleaned and locked.

    Args:
        kind: a key of KINDS.

    Yields:
        The folder, symbolic links followed.

    Raises:
        UsageError: as `check_kind`.
        RunError: another process writes there.
    """
    resolved = check_kind(folder, kind, option)
    with explained(resolved):
        resolved.mkdir(parents=True, exist_ok=True)
    with lock(resolved / LOCK_FILE, f"{option} {folder}"):
        remove_leftovers(resolved)
        mark_folder(resolved, kind)
        yield resolved


@contextmanager
def claim_new(folder: Path, option: str = "--out") -> Iterator[Path]:
    """Hold the name of a folder that is written beside its place and then renamed (`atomic_directory`).

    Yields:
        The folder, symbolic links followed.

    Raises:
        UsageError: it is a file, the current folder, or its parent is not writable.
        RunError: another process writes there.
    """
    resolved = replaceable(folder)
    if resolved.exists() and not resolved.is_dir():
        raise UsageError(f"{option} {folder} is a file: give the name of a new folder")
    check_writable(resolved.parent, f"{option} {folder}")
    made = [parent for parent in resolved.parents if not parent.exists()]
    try:
        with explained(resolved):
            resolved.parent.mkdir(parents=True, exist_ok=True)
        with lock(resolved.with_name(f".{resolved.name}{LOCK_FILE}"), f"{option} {folder}"):
            recover(resolved)
            remove_leftovers(resolved.parent, resolved.name)
            yield resolved
    finally:
        # Empty again if the command failed.
        for parent in made:
            with suppress(OSError):
                parent.rmdir()


@contextmanager
def claim_file(path: Path, option: str = "--out") -> Iterator[None]:
    """Hold the name of a file that is written at once (`atomic_path`), and remove what killed processes left of it.

    Raises:
        UsageError: it is a folder, or the folder around it is not writable.
        RunError: another process writes it.
    """
    resolved = path.resolve()
    if resolved.is_dir():
        raise UsageError(f"{option} {path} is a folder: give the name of a file")
    check_writable(resolved.parent, f"{option} {path}")
    with explained(resolved):
        resolved.parent.mkdir(parents=True, exist_ok=True)
    with lock(resolved.with_name(f".{resolved.name}{LOCK_FILE}"), f"{option} {path}"):
        remove_leftovers(resolved.parent, resolved.name)
        yield


def check_writable(folder: Path, what: str) -> None:
    """Raise UsageError, beginning with `what`, unless files can be made in `folder`, which need not exist yet."""
    there = next(path for path in [folder, *folder.parents] if path.exists())
    if not there.is_dir():
        raise UsageError(f"{what}: {there} is a file, no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{what}: {there} is not writable")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove the unfinished files and folders that killed processes left in `folder`.

    The caller must be the only one who writes there.

    name: only those of this file or folder.
    """
    for leftover in unfinished(folder, "partial", name):
        if leftover.is_dir():
            remove_folder(leftover)
        else:
            leftover.unlink()

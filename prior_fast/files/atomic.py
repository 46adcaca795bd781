"""Files and folders that appear whole or not at all, also after a kill or a power cut."""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prior_fast.errors import UsageError
from prior_fast.files.exchange import exchange
from prior_fast.files.space import explained

# A flush of each file waits for the disk once. For more files than this one flush of all file systems takes less time.
_MANY_FILES = 64


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; it becomes `path` when the block ends without an error.

    The data and the folder are flushed to the disk, so a power cut leaves the old file or the new one. The file gets
    the permissions of any new file, also if its writer gave it fewer. A symbolic link is followed, not replaced.

    Raises:
        RunError: the disk is full.
        OSError: another failure; its filename is set.
    """
    path = path.resolve()
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.touch()
            mode = stat.S_IMODE(partial.stat().st_mode)
            yield partial
            _allow(partial, mode)
            _flush(partial)
            partial.replace(path)
            _flush(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it becomes `path`, whole, when the block ends without an error.

    An older folder at `path` is replaced. All files and folders are flushed to the disk before, so a power cut leaves
    the old folder or the new one. A symbolic link is followed, not replaced.

    Raises:
        UsageError: `path` can't be replaced, because it is the current folder or one above it.
        RunError: the disk is full.
        OSError: another failure; its filename is set.
    """
    path = replaceable(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            _settle(partial)
            _put_in_place(partial, path)
            _flush(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def recover(path: Path) -> None:
    """Put back a folder whose replacement was killed between two renames, and remove the rest of such a replacement.

    The caller must be the only writer of `path`.
    """
    path = path.resolve()
    for retired in unfinished(path.parent, "old", path.name):
        if path.exists():
            remove_folder(retired)
        else:
            retired.rename(path)


def remove_folder(path: Path) -> None:
    """Remove a folder with all that it holds.

    Raises:
        OSError: it can't be removed; filename is `path` (that of `shutil.rmtree` may be a name without its folder).
    """
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def replaceable(path: Path) -> Path:
    """The folder that `path` means, symbolic links followed.

    Raises:
        UsageError: it is the current folder or one above it, which can't be replaced.
    """
    resolved = path.resolve()
    if Path.cwd().is_relative_to(resolved):
        raise UsageError(f"{path} is the current folder or one above it: give the name of a new folder")
    return resolved


def unfinished(folder: Path, ending: str, name: str | None = None) -> list[Path]:
    """What writers put beside a file or folder of this folder: `.NAME.PROCESS.ENDING`, sorted.

    Args:
        ending: "partial" or "old".
        name: NAME; None for every name.
    """
    word = ".+" if name is None else re.escape(name)
    pattern = re.compile(rf"\.{word}\.\d+\.{ending}", re.DOTALL)
    # A name can hold dots: that of `a.b` must not pass for one of `a`. Numbers tell them apart.
    return sorted(path for path in folder.glob(f".*.{ending}") if pattern.fullmatch(path.name))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON. NaN and infinity are refused, since JSON can't represent them."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settle(folder: Path) -> None:
    """Flush a folder with all that it holds, and give its files the permissions of new files."""
    mode = stat.S_IMODE(folder.stat().st_mode) & 0o666
    folders: list[Path] = [folder]
    files: list[Path] = []
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        (folders if path.is_dir() else files).append(path)
    for file in files:
        _allow(file, mode)
    if len(files) > _MANY_FILES:
        os.sync()
        return
    for path in [*files, *reversed(folders)]:
        _flush(path)


def _put_in_place(partial: Path, path: Path) -> None:
    """Rename `partial` to `path`. `partial` is an older folder afterwards, if there was one, or absent."""
    if not path.exists():
        partial.rename(path)
    elif not exchange(partial, path):
        # A kill between these renames leaves only the retired folder; `recover` puts it back.
        retired = path.with_name(f".{path.name}.{os.getpid()}.old")
        path.rename(retired)
        partial.rename(path)
        remove_folder(retired)


def _allow(path: Path, mode: int) -> None:
    """Add permissions: some writers (safetensors) make files that only their owner may read."""
    there = stat.S_IMODE(path.stat().st_mode)
    if there | mode != there:
        path.chmod(there | mode)


def _flush(path: Path) -> None:
    """Wait until a file's data, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

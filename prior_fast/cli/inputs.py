"""A first look at what the user names, before torch is loaded: whether it exists, and is plainly not what is needed.

The code that reads the files checks everything. Its messages for what is missing are the same as these.
"""

import re
from pathlib import Path

from prior_fast.errors import UsageError

_CHECKPOINT = re.compile(r"step-\d{8}")


def look_at_dataset(path: Path | None) -> None:
    """Refuse a folder that holds no prepared or labelled dataset; None is no folder.

    Raises:
        UsageError: it has no dataset.json.
    """
    if path is not None and not (path / "dataset.json").is_file():
        raise UsageError(f"{path} is no prepared dataset: it has no dataset.json; make one with `prior-fast prepare`")


def look_at_checkpoint(path: Path | None, file: bool = False) -> None:
    """Refuse a folder that holds neither a checkpoint nor a run with one; None is no folder.

    file: whether it may also be a file of weights.

    Raises:
        UsageError: there is no such folder, or no checkpoint in it.
    """
    if path is None or (file and path.is_file()):
        return
    if not path.is_dir():
        raise UsageError(f"no checkpoint at {path}: give a run's folder or one of its step-... folders")
    if not (path / "checkpoint.json").is_file() and not (checkpoints(path / "checkpoints") or checkpoints(path)):
        raise UsageError(f"no checkpoint in {path}: give a run's folder or one of its step-... folders")


def checkpoints(folder: Path) -> list[Path]:
    """The folders that have the name of a checkpoint."""
    return [path for path in folder.glob("step-*") if _CHECKPOINT.fullmatch(path.name)]


def look_at_path(path: Path) -> None:
    """Refuse weights that are not there.

    Raises:
        UsageError: there is neither a file nor a folder at the path.
    """
    if not path.exists():
        raise UsageError(f"PATH={path}: there is no such file")


def look_at_file(path: Path | None, what: str) -> None:
    """Refuse a file that is not there; None is no file.

    what: the option, such as "--beside".

    Raises:
        UsageError: there is nothing at the path, or a folder.
    """
    if path is not None and not path.is_file():
        there = "it is a folder" if path.is_dir() else "there is no such file"
        raise UsageError(f"{what} {path}: {there}")


def look_at_folder(path: Path | None, what: str) -> None:
    """Refuse a folder that is not there; None is no folder.

    Raises:
        UsageError: there is nothing at the path, or a file.
    """
    if path is not None and not path.is_dir():
        there = "it is a file" if path.exists() else "there is no such folder"
        raise UsageError(f"{what} {path}: {there}")

"""Folders and files that the user names, as texts that mean the same in every working directory."""

from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.prepare.find_files import what_is_there


def location(text: str) -> str:
    """The absolute path, without following links: the type of an option. Another job or the merge reads it again."""
    return str(Path(text).expanduser().absolute())


def folder(option: str, path: str) -> Path:
    """The folder that an option names.

    Raises:
        UsageError: there is none, or it is a file.
    """
    found = Path(path)
    if found.suffix.lower() in (".zip", ".tar", ".gz", ".tgz") and found.is_file():
        raise UsageError(f"{option} {path}: it is an archive; unpack it and give the folder")
    if not found.is_dir():
        if found.exists():
            raise UsageError(f"{option} {path}: it is a file; give the folder")
        raise UsageError(f"{option} {path}: there is no such folder; {what_is_there(found)}")
    return found

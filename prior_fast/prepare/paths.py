"""What a name from a table may be: a path that stays in the folder the user gave, and an id of plain characters.

Symbolic links in that folder are the user's own and may lead anywhere.
"""

import os
import posixpath
import re
import stat
from pathlib import Path

OUTSIDE = "leads outside the folder"
BAD_NAME = "its name can't be used"
_LONGEST = 1000
# Control characters (also NUL), line separators, and halves of UTF-16 pairs: bytes of a file name that is not UTF-8.
_BAD = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def bad_name(text: str) -> str:
    """Why a text can't be an id or a path: one line; "" if it can be."""
    if len(text) > _LONGEST:
        return f"it has {len(text)} characters, more than {_LONGEST}"
    if found := _BAD.search(text):
        return f"it has the character {found[0]!a}"
    return ""


def path_inside(root: Path, name: str) -> str | None:
    """The path relative to `root` that `name` means, relative or absolute, without ".."; None if it leads outside.

    Nothing on the disk is looked at, but for links in the path of `root` itself.
    """
    if not posixpath.isabs(name):
        inside = posixpath.normpath(name)
        return None if inside == ".." or inside.startswith("../") else inside
    plain = posixpath.normpath(name)
    for base in (posixpath.normpath(root.absolute()), os.path.realpath(root)):
        if plain == base or plain.startswith(base.rstrip("/") + "/"):
            return posixpath.relpath(plain, base)
    return None


def is_file(path: Path) -> bool:
    """Whether it is a regular file. False for a path that the system refuses, as for one with a long name."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether it is a folder. False for a path that the system refuses."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def irregular(path: Path) -> str:
    """Why a path must not be opened: a pipe would make the reader wait for ever. "" for files and what is absent."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return ""
    return "" if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "it is a pipe, a socket or a device, no file"

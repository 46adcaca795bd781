"""Finding the files that a table names, also where the tree on disk differs a little from the table."""

import os
from pathlib import Path, PurePosixPath

from prior_fast.prepare.paths import OUTSIDE, bad_name, is_file, is_folder, path_inside

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".dcm", ".dicom", ".dic", ".tif", ".tiff", ".webp", ".bmp", ".jp2", ".gif"),
    *(".jpe", ".jfif", ".pgm"),
)
TEXT_SUFFIXES = (".txt", ".text", ".xml", ".md")


# patient00001/study1/view1_frontal.jpg: names repeat in many folders, the last four parts hardly ever.
_DEPTH = 4
_NAMES = 4


class FileNotFound(ValueError):
    """A named file is not in the folder, or its name fits several files. The message is one line."""


class LeadsOutside(FileNotFound):
    """A name leads outside of the folder."""


class FileFinder:
    """The files below a folder, by names that need not be exact.

    A name is a path relative to the folder, or an absolute path. If there is no such file, a file of this name in
    another folder is taken, upper and lower case not distinguished, with any of `suffixes` or none. Among several, the
    one whose folders agree with the most of the name's folders, from the last to the first, is taken. Only regular
    files below the folder are found; symbolic links in it are followed.

    Attributes:
        elsewhere: number of names so far whose file was found under another path.
    """

    def __init__(self, root: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> None:
        self.root, self.suffixes = root, suffixes
        self.elsewhere = 0
        self._files: list[PurePosixPath] | None = None
        self._indices: dict[int, dict[str, list[PurePosixPath]]] = {}

    def find(self, name: str) -> str:
        """The path of the named file, relative to the folder.

        Raises:
            LeadsOutside: the name leads outside of the folder, and is not that of a file of another machine which has
                one of the same name here.
            FileNotFound: there is none, or several fit equally well.
        """
        given = name.strip().replace("\\", "/")
        wanted = given.removeprefix("./")
        if not wanted or wanted.endswith("/"):
            raise FileNotFound(f"{name!r} is not the name of a file")
        path = self.exact(wanted)
        if path is not None and is_file(self.root / path):
            return path
        fitting = [found for found in self._fitting(PurePosixPath(wanted)) if is_file(self.root / found)]
        if not fitting and path is None:
            raise LeadsOutside(OUTSIDE)
        if not fitting:
            raise FileNotFound(f"there is no {wanted}, nor a file of this name in another folder or format")
        if len(fitting) > 1:
            shown = ", ".join(str(path) for path in fitting[:2])
            raise FileNotFound(f"there is no {wanted}, and {len(fitting)} files fit: {shown}, ...")
        self.elsewhere += 1
        return fitting[0].as_posix()

    def find_all(self, name: str) -> list[str]:
        """The files of a folder with a known ending or none, if the name is that of a folder; else the named file.

        Raises:
            FileNotFound: there is none, or several files fit equally well.
        """
        given = name.strip().replace("\\", "/")
        inside = self.exact(given) if given else None
        if inside is None or not is_folder(folder := self.root / inside):
            return [self.find(name)]
        found = [path for path in sorted(folder.iterdir()) if is_file(path) and not path.name.startswith(".")]
        wanted = [path for path in found if path.suffix.lower() in self.suffixes or not path.suffix]
        if not wanted:
            raise FileNotFound(f"{name} is a folder without a file that ends in {', '.join(self.suffixes[:4])}, ...")
        for path in wanted:
            if reason := bad_name(path.name):
                raise FileNotFound(f"{name} holds a file whose name can't be used: {reason}")
        return [path.relative_to(self.root).as_posix() for path in wanted]

    def exact(self, name: str) -> str | None:
        """The path relative to the folder that a name means, whether or not there is such a file.

        Returns:
            None for an absolute path that leads outside of the folder.

        Raises:
            LeadsOutside: a relative path leads outside.
            FileNotFound: the name has characters that no path has.
        """
        if reason := bad_name(name):
            raise FileNotFound(f"{name[:60]!a} is not the name of a file: {reason}")
        path = path_inside(self.root, name)
        if path is None and not name.startswith("/"):
            raise LeadsOutside(OUTSIDE)
        return path

    def _fitting(self, wanted: PurePosixPath) -> list[PurePosixPath]:
        """The paths that fit the name best: those that agree with the most of its folders."""
        for depth in range(min(_DEPTH, len(wanted.parts)), 0, -1):
            candidates = self._index(depth).get(self._key(wanted, depth), [])
            exact = [path for path in candidates if path.name.lower() == wanted.name.lower()]
            if found := exact or candidates:
                agreeing = [_common_folders(wanted, path) for path in found]
                return [path for path, count in zip(found, agreeing) if count == max(agreeing)]
        return []

    def _index(self, depth: int) -> dict[str, list[PurePosixPath]]:
        """The files by their last `depth` parts. With more parts fewer files of one key are to be compared."""
        if self._files is None:
            self._files = [PurePosixPath(path) for path in _walk(self.root)]
        if depth not in self._indices:
            index: dict[str, list[PurePosixPath]] = {}
            for path in self._files:
                index.setdefault(self._key(path, depth), []).append(path)
            self._indices[depth] = index
        return self._indices[depth]

    def _key(self, path: PurePosixPath, depth: int) -> str:
        """The last parts in lower case, without a known suffix. Other dots belong to the name, as in a DICOM UID."""
        name = path.name.lower()
        stem, dot, suffix = name.rpartition(".")
        bare = stem if stem and dot + suffix in self.suffixes else name
        return "/".join([*(part.lower() for part in path.parts[-depth:-1]), bare])


def nearest_folder(path: Path) -> str:
    """What is there instead of a missing file: "there is no a/b/c.txt; a holds d, e, f, g and 3 more"."""
    return f"there is no {path}; {what_is_there(path)}"


def what_is_there(path: Path) -> str:
    """The content of the nearest folder above a missing file or folder: "a holds d, e, f, g and 3 more"."""
    folder = next((parent for parent in path.parents if is_folder(parent)), Path("/"))
    names = sorted(child.name for child in folder.iterdir() if not child.name.startswith("."))
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"{folder} holds {', '.join(names[:_NAMES]) or 'nothing'}{more}"


def _common_folders(wanted: PurePosixPath, there: PurePosixPath) -> int:
    """The number of folders that agree, from the last one on."""
    pairs = list(zip(reversed(wanted.parent.parts), reversed(there.parent.parts)))
    return next((count for count, (one, other) in enumerate(pairs) if one.lower() != other.lower()), len(pairs))


def _walk(root: Path) -> list[str]:
    """The paths of all files below `root`, sorted, relative to it. Links to folders are followed, each folder once."""
    found, seen = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        facts = Path(folder).stat()
        if (facts.st_dev, facts.st_ino) in seen:
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        folders[:], own = ([name for name in names if _is_plain(name)] for names in (folders, files))
        inside = Path(folder).relative_to(root)
        found += [(inside / name).as_posix() for name in own]
    return sorted(found)


def _is_plain(name: str) -> bool:
    return not name.startswith(".") and not bad_name(name)

"""Finding MIMIC-CXR's tree and tables at or below the folder that the user names."""

from collections.abc import Iterator
from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.radiology.study import Tree

IMAGES, REPORTS = (".jpg", ".jpeg", ".dcm", ".png"), (".txt",)
_SUBJECTS = "p[0-9][0-9]"
# physionet.org/files/mimic-cxr-jpg/2.1.0/files: the tree is four folders below the first.
_DEPTH = 6


def find_tree(folder: Path, option: str, suffixes: tuple[str, ...] = ()) -> Tree:
    """The tree of a folder, which is its root, its `files` folder, holds p10, p11, ... itself, or is above one of them.

    Args:
        suffixes: the endings of the files that are wanted, to choose among several trees below the folder; the first
            ending is preferred, then the greatest path, which is that of the newest version.

    Raises:
        UsageError: the folder is missing, a zip file, or holds no tree; the message names `option`.
    """
    if folder.suffix == ".zip":
        raise UsageError(f"{option} {folder}: unzip the file and give the folder that holds its files/")
    if not folder.is_dir():
        raise UsageError(f"{option} {folder}: there is no such folder")
    bases = [base for base in folders_at_or_below(folder) if _has_subjects(base)]
    if not bases and (folder / "files").is_dir():
        return Tree(folder)
    if bases:
        base = max(bases, key=lambda base: (-_rank(base, suffixes), str(base)))
        return Tree(base.parent) if base.name == "files" else Tree(base, "")
    zipped = min(folder.glob("*.zip"), default=None)
    hint = f"; unzip {zipped.name} first" if zipped else ", nor a folder p10, p11, ..."
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:4]) or "nothing"
    raise UsageError(f"{option} {folder}: there is no folder files/ in it{hint}; it holds {there}")


def find_table(folders: list[Path], name: str) -> Path | None:
    """The table `name` ("metadata", "split", ...) of any version, csv or csv.gz, in the first folder that has one."""
    for folder in folders:
        for pattern in (f"mimic-cxr-*-{name}.csv", f"mimic-cxr-*-{name}.csv.gz"):
            if found := sorted(path for path in folder.glob(pattern) if path.is_file()):
                return found[-1]
    return None


def folders_at_or_below(folder: Path) -> Iterator[Path]:
    """The folder and those below it, not those of subjects; the nearest first."""
    level = [folder]
    for _ in range(_DEPTH):
        yield from level
        below = (child for parent in level if not _has_subjects(parent) for child in sorted(parent.iterdir()))
        level = [child for child in below if child.is_dir() and not child.name.startswith(".")]


def _has_subjects(folder: Path) -> bool:
    return any(child.is_dir() for child in folder.glob(_SUBJECTS))


def _rank(base: Path, suffixes: tuple[str, ...]) -> int:
    """The place in `suffixes` of the first ending that a tree has, from its first subjects."""
    subjects = [subject for group in sorted(base.glob(_SUBJECTS)) for subject in sorted(group.glob("p*"))[:3]]
    there = {path.suffix.lower() for subject in subjects[:30] for path in (*subject.glob("*"), *subject.glob("*/*"))}
    return next((place for place, suffix in enumerate(suffixes) if suffix in there), len(suffixes))

"""Finding the files of a labelled dataset, and comparing them with its tables."""

from collections.abc import Iterable
from pathlib import Path

from prior_fast.errors import UsageError


def need(folder: Path, *names: str) -> Path:
    """The first of the files or folders `names` that exists in the folder given as --images.

    Raises:
        UsageError: none of them exists.
    """
    if not folder.is_dir():
        raise UsageError(f"--images {folder}: there is no such folder")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UsageError(f"--images {folder}: there is no {' or '.join(names)} in it; give the folder that holds it")


def compare_files(ids: Iterable[str], files: Iterable[Path]) -> tuple[dict[str, Path], list[str], list[str]]:
    """Find the DICOM files of the images that a table names.

    Returns:
        The file of each id, the ids without a file, and notes on files that no row names.
    """
    by_id: dict[str, Path] = {}
    notes, twice = [], 0
    for path in sorted(files):
        twice += path.stem in by_id
        by_id.setdefault(path.stem, path)
    wanted = set(ids)
    if nameless := len(by_id.keys() - wanted):
        notes.append(f"{nameless} DICOM file(s) without a row in the table were not read")
    if twice:
        notes.append(f"{twice} DICOM file(s) have the name of another one; the first of each, by path, was read")
    return {name: by_id[name] for name in wanted & by_id.keys()}, sorted(wanted - by_id.keys()), notes

"""Finding the files of a labelled dataset, and comparing them with its tables."""

from collections.abc import Iterable
from pathlib import Path

from prior_fast.errors import UsageError
from prior_fast.prepare.paths import irregular, is_file, is_folder
from prior_fast.radiology.text_files import NotText, decode_text


def need(folder: Path, *names: str) -> Path:
    """The first of the files or folders `names` that exists in the folder given as --images.

    Raises:
        UsageError: none of them exists.
    """
    if not folder.is_dir():
        raise UsageError(f"--images {folder}: there is no such folder")
    for name in names:
        if is_file(folder / name) or is_folder(folder / name):
            return folder / name
    raise UsageError(f"--images {folder}: there is no {' or '.join(names)} in it; give the folder that holds it")


def read_text(path: Path) -> str:
    """The text of a list, in any usual encoding.

    Raises:
        UsageError: it can't be read, or is no text.
    """
    try:
        if reason := irregular(path):
            raise UsageError(f"{path} can't be read: {reason}")
        return decode_text(path.read_bytes())[0]
    except (OSError, NotText) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error


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

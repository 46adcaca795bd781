"""The last file of a dataset, dataset.json, with the sizes and digests of all others."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prior_fast.data.dataset_folder import INFO_FILE
from prior_fast.errors import UsageError
from prior_fast.files import sha256
from prior_fast.files.sealed import write_sealed


def files_of(folder: Path) -> list[Path]:
    """All files of a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_info(folder: Path, info: Mapping[str, Any], advance: Callable[[], object]) -> dict[str, Any]:
    """Write dataset.json, sealed, with "files" added: size and SHA-256 of every file of the folder.

    Args:
        advance: called after each file.

    Returns:
        The content of dataset.json.
    """
    files = {}
    for path in files_of(folder):
        files[str(path.relative_to(folder))] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        advance()
    complete = {**info, "files": files}
    write_sealed(folder / INFO_FILE, complete)
    return complete


def check_contrast(mean: float, std: float, what: str) -> None:
    """Refuse images that are all of one gray level: normalizing divides by their standard deviation.

    Args:
        mean, std: those of the images in [0, 1].
        what: the images, for the message.

    Raises:
        UsageError: the standard deviation is 0.
    """
    if std == 0:
        raise UsageError(f"{what} are of one gray level ({255 * mean:.0f}): nothing can be learned from them")

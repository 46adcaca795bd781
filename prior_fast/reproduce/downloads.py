"""The public datasets of the paper: how they are called, where they are, and what their folders hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prior_fast.data.dataset_folder import INFO_FILE, read_info
from prior_fast.errors import UsageError
from prior_fast.spelling import nearest


@dataclass(frozen=True)
class Download:
    """A dataset as its publisher offers it.

    Attributes:
        title: its name and publisher.
        holds: what the folder must hold; one name of each group.
        prepared: `name` or `format` in the dataset.json of the prepared form; "" if it has none of its own.
        optional: the tables can be made without it.
    """

    title: str
    holds: tuple[tuple[str, ...], ...]
    prepared: str = ""
    optional: bool = False

    @property
    def contents(self) -> str:
        """What the folder must hold, in words."""
        return ", ".join(" or ".join(names) for names in self.holds)


DOWNLOADS = {
    "mimic": Download(
        "MIMIC-CXR-JPG 2.0.0 (PhysioNet)",
        (("files",), ("mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.0.0-metadata.csv.gz")),
        "prior-fast-dataset",
    ),
    "mimic-reports": Download(
        "the reports of MIMIC-CXR 2.0.0 (PhysioNet), mimic-cxr-reports.zip unzipped", (("files",),), optional=True
    ),
    "chexpert": Download(
        "CheXpert-v1.0 or CheXpert-v1.0-small (Stanford)",
        (("train.csv", "CheXpert-v1.0-small", "CheXpert-v1.0"),),
        "chexpert",
    ),
    "rsna": Download(
        "RSNA Pneumonia Detection, stage 2 (Kaggle)",
        (("stage_2_train_images",), ("stage_2_train_labels.csv",)),
        "rsna",
    ),
    "siim": Download(
        "SIIM-ACR Pneumothorax Segmentation (Kaggle)",
        (("dicom-images-train",), ("train-rle.csv", "stage_2_train.csv")),
        "siim",
    ),
}


@dataclass(frozen=True)
class Given:
    """A dataset that the user has: its folder, and whether it is prepared already."""

    path: Path
    prepared: bool


def given_datasets(words: Sequence[str]) -> dict[str, Given]:
    """The datasets that `NAME=DIR` words name.

    Raises:
        UsageError: a word of another form, an unknown name, a name given twice, or a folder that is not that dataset.
    """
    found: dict[str, Given] = {}
    for word in words:
        name, equals, folder = word.partition("=")
        if not equals or not folder:
            raise UsageError(f"--data {word}: give NAME=DIR; NAME is one of {', '.join(DOWNLOADS)}")
        if name not in DOWNLOADS:
            hint = nearest(name, list(DOWNLOADS)) or f": choose from {', '.join(DOWNLOADS)}"
            raise UsageError(f"--data {word}: there is no dataset {name!r}{hint}")
        if name in found:
            raise UsageError(f"--data {word}: {name} is given twice")
        found[name] = _recognize(name, Path(folder).expanduser().resolve())
    return found


def _recognize(name: str, path: Path) -> Given:
    download = DOWNLOADS[name]
    if not path.is_dir():
        raise UsageError(f"--data {name}={path}: there is no such folder")
    if download.prepared and (path / INFO_FILE).is_file():
        info = read_info(path)
        if download.prepared not in (info.get("name"), info.get("format")):
            is_now = info.get("name") or info.get("format")
            raise UsageError(f"--data {name}={path}: its {INFO_FILE} is of {is_now}, not of {download.prepared}")
        return Given(path, prepared=True)
    for names in download.holds:
        # MIMIC's tables may be beside its folder files.
        if not any((path / each).exists() for each in names) and path.name not in names:
            raise UsageError(
                f"--data {name}={path}: there is no {' or '.join(names)} in it; give the folder of {download.title}, "
                "or a dataset that `prior-fast prepare` made of it"
            )
    return Given(path, prepared=False)


def missing(names: Sequence[str], given: Mapping[str, Given]) -> list[str]:
    """The datasets of `names` that are needed and not given."""
    return [name for name in names if name not in given and not DOWNLOADS[name].optional]


def describe_datasets(names: Sequence[str], given: Mapping[str, Given]) -> list[str]:
    """Lines for the user: how each dataset is given, whether it is, what it is, and what its folder holds."""
    lines = []
    for name in names:
        download, found = DOWNLOADS[name], given.get(name)
        status = "not given: the reports are beside the images" if download.optional else "missing"
        if found:
            status = f"{found.path}, {'prepared' if found.prepared else 'the download'}"
        lines.append(f"--data {name}=DIR: {status}")
        lines.append(f"    {download.title}; the folder holds {download.contents}")
    return lines

"""Prepared datasets: images with reports. Images and tokens are memory-mapped.

The files are described in docs/architecture.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from prior_fast.data.columns import INTEGER, LABEL, NUMBER, PICTURE, TEXT, TEXTS, Column, column_names, read_columns
from prior_fast.data.dataset_checks import COUNT, LEVEL, NAMES, OBJECT, check_entries, check_files, check_listed
from prior_fast.data.dataset_folder import (
    INFO_FILE,
    DatasetFolder,
    Verify,
    check_format,
    map_array,
    read_info,
    read_mask,
)
from prior_fast.data.prepared_checks import check_lengths, check_range, check_tokens
from prior_fast.data.tokenizer_folder import read_tokenizer
from prior_fast.errors import UsageError
from prior_fast.radiology.labels import CHEXPERT_LABELS
from prior_fast.spelling import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT, VERSION = "prior-fast-dataset", 1
# The columns of manifest.parquet beside those of the labels.
MANIFEST_COLUMNS = (
    *("study_id", "subject_id", "study", "subject", "split", "dicom_ids", "image_paths", "image_begin", "image_end"),
    *("sentence_begin", "sentence_end", "sentences"),
)
# The entries of dataset.json, the files and the columns without which a dataset can't be used.
ENTRIES = {
    **dict.fromkeys(("studies", "images", "sentences", "tokens"), COUNT),
    **dict.fromkeys(("image_mean", "image_std"), LEVEL),
    **dict.fromkeys(("tokenizer.vocab_size", "tokenizer.cls_id", "tokenizer.sep_id"), COUNT),
    "splits": OBJECT,
}
FILES = ("images.npy", "tokens.npy", "sentence_offsets.npy", "manifest.parquet")
TOKENIZER_FILE = "tokenizer/tokenizer.json"
ANNOTATIONS = {
    "image_row": INTEGER,
    **dict.fromkeys(("finding", "side", "severity"), TEXT),
    **dict.fromkeys(("x", "y", "width", "height"), NUMBER),
    "mask": PICTURE,
}
ANNOTATIONS_FILE = "annotations.parquet"


@dataclass(frozen=True)
class Annotation:
    """The annotation of a finding in an image.

    Attributes:
        image_row: row of the image in `PreparedDataset.images`.
        box: x, y, width, height in pixels of the 224x224 image, from its top left corner.
        mask: bool [224, 224].
    """

    image_row: int
    finding: str
    side: str
    severity: str
    box: tuple[float, float, float, float]
    mask: np.ndarray


class PreparedDataset(DatasetFolder):
    """The studies of a prepared dataset, or of one split of it, numbered from 0.

    Attributes:
        root: the dataset's folder.
        info: the content of dataset.json.
        split: "train", "validate", "test", or None for all.
        study_ids: int64 [N].
        subject_ids: int64 [N].
        classes: the names of the labels; CheXpert's 14 for MIMIC-CXR, none for a source without labels.
        labels: float32 [N, len(classes)], 1 present, 0 absent, -1 uncertain, nan blank.
        image_begin, image_end: int64 [N], the rows of each study's images in `images`.
        sentence_begin, sentence_counts: int64 [N], the rows of each study's sentences.
        tokens: int32, the concatenated token ids of the sentences of all splits, memory-mapped.
        sentence_offsets: int64, where each sentence begins in `tokens`, and the end of the last.
        images: uint8 [images, 224, 224], memory-mapped, the images of all splits.
    """

    def __init__(self, root: Path, info: dict[str, Any], split: str | None) -> None:
        """Use `PreparedDataset.open`, which checks the files first."""
        super().__init__(root, info)
        self.split = split
        # Plain views of the mapped files: slicing a memmap is slower.
        self.tokens = np.asarray(map_array(root, "tokens.npy", (info["tokens"],), np.int32))
        self.sentence_offsets = np.asarray(map_array(root, "sentence_offsets.npy", (info["sentences"] + 1,), np.int64))
        ranges = ("image_begin", "image_end", "sentence_begin", "sentence_end")
        self.classes: tuple[str, ...] = tuple(info.get("labels", CHEXPERT_LABELS))
        integers = dict.fromkeys(("study_id", "subject_id", *ranges), INTEGER)
        table = self._manifest({**integers, **dict.fromkeys(self.classes, LABEL)})
        column = {name: table[name].to_numpy() for name in ("study_id", "subject_id", *ranges)}
        self.study_ids: np.ndarray = column["study_id"]
        self.subject_ids: np.ndarray = column["subject_id"]
        self.image_begin: np.ndarray = column["image_begin"]
        self.image_end: np.ndarray = column["image_end"]
        self.sentence_begin: np.ndarray = column["sentence_begin"]
        self.sentence_counts: np.ndarray = column["sentence_end"] - column["sentence_begin"]
        self.labels: np.ndarray = np.empty((table.num_rows, len(self.classes)), np.float32)
        for place, name in enumerate(self.classes):
            self.labels[:, place] = table[name].to_numpy()

    @classmethod
    def open(cls, path: Path | str, split: str | None = None, verify: Verify = "sizes") -> "PreparedDataset":
        """Open the dataset at `path`.

        Args:
            split: "train", "validate" or "test"; None for all of them.
            verify: "sizes" checks that each file exists and has its size; "full" also compares SHA-256.

        Raises:
            UsageError: there is no prepared dataset, a file is missing, truncated or changed, or the split is unknown
                or empty.
            ValueError: `verify` is neither "sizes" nor "full".
        """
        if verify not in ("sizes", "full"):
            raise ValueError(f"verify must be 'sizes' or 'full', not {verify!r}")
        root = Path(path)
        info = read_info(root)
        check_format(root, info, FORMAT, VERSION, "prior-fast prepare")
        check_entries(root, info, {**ENTRIES, **({"labels": NAMES} if "labels" in info else {})})
        check_listed(root, info, FILES)
        _check_split(root, info, split)
        check_files(root, info, verify)
        dataset = cls(root, info, split)
        dataset._check_rows()
        return dataset

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process maps the files again instead of receiving a copy of them.
        return PreparedDataset, (self.root, self.info, self.split)

    def __len__(self) -> int:
        return len(self.study_ids)

    def image_rows(self, index: int) -> range:
        """The rows of a study's images in `images`."""
        return range(int(self.image_begin[index]), int(self.image_end[index]))

    def image(self, row: int) -> np.ndarray:
        """A view of the image in a row of `images`: uint8 [224, 224]."""
        return np.asarray(self.images[row])

    def sentence_count(self, index: int) -> int:
        """The number of sentences of a study's report."""
        return int(self.sentence_counts[index])

    def sentences(self, index: int) -> list[str]:
        """The sentences of a study's report, findings before impression."""
        return self._sentences[index].as_py()

    def sentence_tokens(self, index: int) -> list[np.ndarray]:
        """The token ids of each sentence of a study's report, without special tokens: int32 views."""
        begin = self.sentence_begin[index]
        bounds = self.sentence_offsets[begin : begin + self.sentence_counts[index] + 1].tolist()
        return [self.tokens[begin:end] for begin, end in pairwise(bounds)]

    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """The tokenizer that made the tokens.

        Raises:
            UsageError: it is damaged, or another one.
        """
        check_listed(self.root, self.info, [TOKENIZER_FILE])
        tokenizer = read_tokenizer(self.root / "tokenizer", self.vocab_size, "prepare the dataset again")
        found, wanted = (tokenizer.cls_token_id, tokenizer.sep_token_id), (self.cls_id, self.sep_id)
        if found != wanted:
            raise UsageError(
                f"{self.root / 'tokenizer'} has [CLS] and [SEP] at {found}, not {wanted}; prepare the dataset again"
            )
        return tokenizer

    def annotations(self) -> list[Annotation]:
        """The annotations of this split's images; an empty list if the source has none.

        Raises:
            UsageError: their file is damaged.
        """
        if ANNOTATIONS_FILE not in self.info["files"] or not len(self):
            return []
        path = self.root / ANNOTATIONS_FILE
        first, end = int(self.image_begin[0]), int(self.image_end[-1])
        table = read_columns(path, ANNOTATIONS, [("image_row", ">=", first), ("image_row", "<", end)])
        return [
            Annotation(
                **{name: row[name] for name in ("image_row", "finding", "side", "severity")},
                box=(row["x"], row["y"], row["width"], row["height"]),
                mask=read_mask(path, row["image_row"], row["mask"]),
            )
            for row in table.to_pylist()
        ]

    @property
    def cls_id(self) -> int:
        """The id of the tokenizer's [CLS]."""
        return self.info["tokenizer"]["cls_id"]

    @property
    def sep_id(self) -> int:
        """The id of the tokenizer's [SEP]."""
        return self.info["tokenizer"]["sep_id"]

    @property
    def vocab_size(self) -> int:
        """The number of the tokenizer's tokens, special ones included."""
        return self.info["tokenizer"]["vocab_size"]

    @cached_property
    def study_names(self) -> list[str]:
        """The name of each study in its source; its number in a dataset that has no names."""
        return self._names("study", self.study_ids)

    @cached_property
    def subject_names(self) -> list[str]:
        """The name of each study's subject in its source; its number in a dataset that has no names."""
        return self._names("subject", self.subject_ids)

    @cached_property
    def image_paths(self) -> dict[int, str] | None:
        """The file of each image by its row, relative to the folder of the images; None if the dataset has none."""
        if "image_paths" not in self._columns:
            return None
        column = self._manifest({"image_paths": TEXTS})["image_paths"]
        check_lengths(self._path, "image_paths", pc.list_value_length(column).to_numpy(), self._image_counts)
        begins, paths = self.image_begin.tolist(), column.to_pylist()
        return {begin + place: path for begin, own in zip(begins, paths) for place, path in enumerate(own)}

    @cached_property
    def sentence_lengths(self) -> np.ndarray:
        """Tokens of each sentence, of all splits: int64."""
        return np.diff(self.sentence_offsets)

    @cached_property
    def _sentences(self) -> pa.ChunkedArray:
        column = self._manifest({"sentences": TEXTS})["sentences"]
        check_lengths(self._path, "sentences", pc.list_value_length(column).to_numpy(), self.sentence_counts)
        return column

    @cached_property
    def _columns(self) -> list[str]:
        return column_names(self._path)

    @property
    def _path(self) -> Path:
        return self.root / "manifest.parquet"

    @property
    def _image_counts(self) -> np.ndarray:
        return self.image_end - self.image_begin

    def _names(self, column: str, numbers: np.ndarray) -> list[str]:
        if column not in self._columns:
            return [*map(str, numbers.tolist())]
        return self._manifest({column: TEXT})[column].to_pylist()

    def _manifest(self, wanted: Mapping[str, Column]) -> pa.Table:
        return self.read_manifest(wanted, None if self.split is None else [("split", "==", self.split)])

    def _check_rows(self) -> None:
        """Raise UsageError unless the rows of the manifest fit the other files."""
        info, count = self.info, len(self)
        wanted = info["studies"] if self.split is None else info["splits"][self.split]["studies"]
        if count != wanted:
            raise UsageError(f"{self._path} has {count} studies, not {wanted}; prepare the dataset again")
        check_tokens(self.root, info, self.sentence_offsets, self.tokens)
        check_range(self._path, "image", self.image_begin, self.image_end, info["images"], 1)
        sentence_end = self.sentence_begin + self.sentence_counts
        check_range(self._path, "sentence", self.sentence_begin, sentence_end, info["sentences"], 0)


def _check_split(root: Path, info: dict[str, Any], split: str | None) -> None:
    for name, counts in info["splits"].items():
        if not isinstance(counts, dict) or not COUNT.fits(counts.get("studies")):
            raise UsageError(
                f"{root / INFO_FILE} has no number of studies of {name!r} in 'splits'; prepare the dataset again"
            )
    if split is None:
        return
    splits = {name: counts["studies"] for name, counts in info["splits"].items()}
    known = ", ".join(f"{name} ({count} studies)" for name, count in splits.items())
    if split not in splits:
        raise UsageError(f"{root} has no split {split!r}{nearest(str(split), splits) or ';'} it has {known}")
    if not splits[split]:
        raise UsageError(f"the split {split!r} of {root} has no study; it has {known}")

"""Small labelled datasets where a bright square is the finding: its label, its mask and its box."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from prior_fast.prepare.labelled.write import Contents, Record, SplitLists, write_labelled
from prior_fast.radiology.masks import encode_mask

SIDE = 224


def square(rng: np.random.Generator, positive: bool, size: int = 64) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Dark noise, with a bright square if `positive`; uint8 [224, 224] and the square's upper left corner."""
    image = rng.integers(0, 60, (SIDE, SIDE)).astype(np.uint8)
    if not positive:
        return image, None
    x, y = (int(value) for value in rng.integers(0, SIDE - size, 2))
    image[y : y + size, x : x + size] += 180
    return image, (x, y)


def write_squares(
    root: Path,
    positives: Sequence[bool],
    splits: Mapping[str, tuple[Sequence[int], Sequence[int], Sequence[int]]],
    *,
    name: str = "siim",
    marked: bool = True,
    size: int = 64,
    seed: int = 0,
) -> Path:
    """A dataset of one class.

    splits: rows of training, validation and test by name; 10 % and 1 % are the first 4 and the first 2 training rows.
    """
    rng, records, images = np.random.default_rng(seed), [], []
    for row, positive in enumerate(positives):
        image, corner = square(rng, positive, size)
        mask = np.zeros((SIDE, SIDE), bool)
        if corner:
            x, y = corner
            mask[y : y + size, x : x + size] = True
        boxes = ((float(corner[0]), float(corner[1]), float(size), float(size)),) if corner and marked else ()
        encoded = encode_mask(mask) if corner and marked else None
        records.append(Record(f"image-{row}", f"patient-{row}", (float(positive),), boxes, encoded))
        images.append(image)
    lists = {key: _lists(*rows) for key, rows in splits.items()}
    contents = Contents(name, ("Finding",), records, lists, has_boxes=marked, has_masks=marked)
    write_labelled(root, contents, [np.stack(images)], 1)
    return root


def write_labels(root: Path, classes: Sequence[str], labels: np.ndarray, train: int, validate: int) -> Path:
    """A dataset of noise with labels float [N, C]; the first rows train, the next validate, the others test."""
    rng, count = np.random.default_rng(0), len(labels)
    records = [Record(f"image-{row}", f"patient-{row}", tuple(map(float, labels[row]))) for row in range(count)]
    rows = (range(train), range(train, train + validate), range(train + validate, count))
    contents = Contents("chexpert", tuple(classes), records, {"prior-0": _lists(*rows)})
    write_labelled(root, contents, [rng.integers(0, 255, (count, SIDE, SIDE)).astype(np.uint8)], 1)
    return root


def _lists(train: Sequence[int], validate: Sequence[int], test: Sequence[int]) -> SplitLists:
    def names(rows: Sequence[int]) -> list[str]:
        return [f"image-{row}" for row in rows]

    shares = {100: names(train), 10: names(train[:4]), 1: names(train[:2])}
    return SplitLists("made up", shares, names(validate), names(test))

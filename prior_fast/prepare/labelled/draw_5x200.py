"""The lists of CheXpert 5x200: drawn by a published rule, or read from a file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from prior_fast.errors import UsageError
from prior_fast.prepare.csv_tables import read_rows
from prior_fast.prepare.labelled.chexpert_table import Row, strip_prefix
from prior_fast.prepare.labelled.files import read_text
from prior_fast.radiology.labels import CHEXPERT_TABLE_LABELS, FIVE_CLASSES, UNCERTAIN_IS_POSITIVE

RULES = ("prior", "gloria")


@dataclass(frozen=True)
class Drawn:
    """Images drawn from train.csv.

    Attributes:
        chosen: the drawn rows, each with the number of its finding in `FIVE_CLASSES`.
        pools: for each finding, the number of images from which the rule draws.
    """

    chosen: list[tuple[Row, int]]
    pools: tuple[int, ...]


def draw(rows: Sequence[Row], rule: str, seed: int, per_class: int) -> Drawn:
    """Draw frontal images of train.csv that show only one of the five findings, ordered by finding.

    rule "prior": blank counts as 0. Uncertain counts as 1 for Atelectasis, Edema and Pleural Effusion, and as 0 for the
    other two. Exactly one of the five is 1; the other nine labels do not matter.
    rule "gloria", also used by MGCA: the finding is 1, and all other labels except No Finding are 0 or blank. Seed 0
    draws the same rows as pandas' `sample(n, random_state=0)`, as MGCA does.
    """
    number_of = [_shown(row, rule) if row.frontal else None for row in rows]
    chosen, pools = [], []
    for number in range(len(FIVE_CLASSES)):
        pool = [row for row, shown in zip(rows, number_of) if shown == number]
        order = np.random.RandomState(seed).permutation(len(pool))[:per_class]
        chosen += [(pool[place], number) for place in order]
        pools.append(len(pool))
    return Drawn(chosen, tuple(pools))


def _shown(row: Row, rule: str) -> int | None:
    """The number of the only one of the five findings that the row shows; None if it shows none or several."""
    labels = {name: value or 0.0 for name, value in zip(CHEXPERT_TABLE_LABELS, row.labels)}
    if rule == "prior":
        counting = {1.0: FIVE_CLASSES, -1.0: UNCERTAIN_IS_POSITIVE}
        present = [name for name in FIVE_CLASSES if name in counting.get(labels[name], ())]
    else:
        present = [name for name, value in labels.items() if value != 0 and name != "No Finding"]
    if len(present) != 1 or present[0] not in FIVE_CLASSES or (rule != "prior" and labels[present[0]] != 1):
        return None
    return FIVE_CLASSES.index(present[0])


def read_list(path: Path) -> list[tuple[str, int]]:
    """The images of a list and the number of the finding of each in `FIVE_CLASSES`.

    A list is a JSON object in the format of PRIOR's authors, {"row of train.csv": {"image_path": ..., "label": [one 1
    and four 0]}}, or a csv with a column Path and the five labels, one of which is 1 in each row.

    Raises:
        UsageError: the file has another format, a path is not an image of CheXpert or is repeated, or a label is not
            one-hot.
    """
    entries = _json_entries(path) if path.suffix.lower() == ".json" else _csv_entries(path)
    found: dict[str, int] = {}
    for name, label in entries:
        stripped = strip_prefix(name)
        if stripped is None:
            raise UsageError(f"{path}: {name!r} has no train/patient.../ or valid/patient.../ in it")
        if stripped[0] in found:
            raise UsageError(f"{path}: {stripped[0]} is there twice")
        if sorted(label) != [0, 0, 0, 0, 1]:
            raise UsageError(
                f"{path}: the labels of {stripped[0]} are {label}, not one 1 and four 0 for {FIVE_CLASSES}"
            )
        found[stripped[0]] = label.index(1)
    if not found:
        raise UsageError(f"{path} names no image")
    return list(found.items())


def read_paths(path: Path) -> list[str]:
    """The images of a list without their labels. The file is JSON or csv as in `read_list`, or has one path per line.

    Raises:
        UsageError: the file has another format, or a path is not an image of CheXpert.
    """
    kind = path.suffix.lower()
    if kind == ".json":
        names = [name for name, _ in _json_entries(path)]
    elif kind == ".csv":
        names = read_rows(path, {"Path": pa.string()})["Path"]
    else:
        names = [line for line in read_text(path).splitlines() if line.strip()]
    found = [(name, strip_prefix(name)) for name in names]
    if unknown := [name for name, stripped in found if stripped is None]:
        raise UsageError(f"{path}: {unknown[0]!r} has no train/patient.../ or valid/patient.../ in it")
    return [stripped[0] for _, stripped in found if stripped is not None]


def _json_entries(path: Path) -> list[tuple[str, list[float]]]:
    form = '{"0": {"image_path": "train/...", "label": [1, 0, 0, 0, 0]}, ...}'
    try:
        value = json.loads(read_text(path))
        return [(str(entry["image_path"]), [float(x) for x in entry["label"]]) for entry in value.values()]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UsageError(f"{path} is not of the form {form} ({type(error).__name__}: {error})") from error


def _csv_entries(path: Path) -> list[tuple[str, list[float]]]:
    columns = read_rows(path, {"Path": pa.string(), **dict.fromkeys(FIVE_CLASSES, pa.float64())}, nullable=FIVE_CLASSES)
    return [(name, [value or 0.0 for value in labels]) for name, *labels in zip(*columns.values())]

"""CheXpert-v1.0 and CheXpert-v1.0-small: frontal images with their 14 labels."""

import argparse
from pathlib import Path

from prior_fast.prepare.labelled import splits
from prior_fast.prepare.labelled.chexpert_table import Row, find_root, read_table
from prior_fast.prepare.labelled.draw_5x200 import draw, read_paths
from prior_fast.prepare.labelled.files import need
from prior_fast.prepare.labelled.labelled_source import Candidate, Decoded, LabelledSource
from prior_fast.prepare.labelled.splits import Pool
from prior_fast.prepare.labelled.write import SplitLists
from prior_fast.radiology.labels import CHEXPERT_TABLE_LABELS, FIVE_CLASSES
from prior_fast.radiology.xray import read_xray

HELP = "CheXpert-v1.0 or CheXpert-v1.0-small: 14 labels"
EXAMPLE = "--images CheXpert-v1.0-small"
IMAGES = "folder with train.csv, valid.csv, train/ and valid/, or its parent"

_MGCA_VALIDATION = 5000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this dataset alone."""
    parser.add_argument(
        "--exclude",
        type=Path,
        metavar="LIST",
        help="images that the split mgca leaves out: one path per line, a csv with a column Path, or a 5x200 JSON "
        "(default: the images that GLoRIA's 5x200 rule draws with seed 0, as in MGCA)",
    )


def read(args: argparse.Namespace) -> LabelledSource:
    """The dataset that the arguments name."""
    return read_chexpert(args.images, args.exclude)


def read_chexpert(images: Path, exclude: Path | None = None) -> LabelledSource:
    """Read CheXpert's tables.

    Args:
        images: the folder of train.csv and valid.csv, or its parent.
        exclude: a list of images that MGCA's split leaves out; None for the images that GLoRIA's rule draws with
            seed 0.

    Raises:
        UsageError: a table or the list can't be used.
    """
    root = find_root(images)
    train, valid = (read_table(need(root, name)) for name in ("train.csv", "valid.csv"))
    rows = [row for row in (*train, *valid) if row.frontal]
    notes = [f"{len(train) + len(valid) - len(rows)} lateral image(s) were not read"]
    if exclude is None:
        excluded, how = (
            {row.path for row, _ in draw(train, "gloria", 0, 200).chosen},
            "what GLoRIA's rule draws, seed 0,",
        )
    else:
        excluded, how = set(read_paths(exclude)), f"the images of {exclude.name}"
    if strangers := len(excluded - {row.path for row in rows}):
        notes.append(f"{strangers} image(s) of {exclude} are no frontal images of train.csv")
    return LabelledSource(
        "chexpert",
        CHEXPERT_TABLE_LABELS,
        root,
        [_candidate(root, row) for row in rows],
        decode,
        lambda pool: _splits(pool, excluded, how),
        positive=lambda record: any(record.labels[CHEXPERT_TABLE_LABELS.index(name)] == 1 for name in FIVE_CLASSES),
        notes=notes,
    )


def decode(candidate: Candidate) -> Decoded:
    """Decode the image. CheXpert has no annotations.

    Raises:
        UnreadableImage: the file is absent or broken.
    """
    return Decoded(read_xray(candidate.path)[0])


def _candidate(root: Path, row: Row) -> Candidate:
    labels = tuple(float("nan") if value is None else value for value in row.labels)
    return Candidate(root / row.path, row.path, row.patient, labels)


def _splits(pool: Pool, excluded: set[str], how: str) -> dict[str, SplitLists]:
    train = pool.only([name.startswith("train/") for name in pool.ids])
    return {**splits.prior_splits(train), "mgca": _mgca(pool, train, excluded, how)}


def _mgca(pool: Pool, train: Pool, excluded: set[str], how: str) -> SplitLists:
    """MGCA's parts: test on valid.csv, validate on 5,000 images of train.csv, train on the rest without 5x200.

    MGCA draws the 5,000 by image. Here whole patients are drawn (at most 20 % of the images), and no test patient is in
    another part.
    """
    test = pool.only([name.startswith("valid/") for name in pool.ids])
    tested = set(test.patients)
    usable = train.only([name not in excluded and who not in tested for name, who in zip(train.ids, train.patients)])
    wanted = min(_MGCA_VALIDATION, round(0.2 * len(usable.ids)))
    held = splits.held_out_patients(usable, wanted, 0)
    rest = usable.only([not value for value in held])
    rule = (
        f"MGCA's parts: train.csv without {how}, of it patients with {wanted} images or a few more (seed 0) to "
        "validate, valid.csv to test; 1 and 10 % as pandas samples with random_state=42. MGCA draws its validation "
        "images one by one, so that patients are in both parts."
    )
    return SplitLists(rule, splits.sampled_percentages(rest.ids), usable.only(held).ids, test.ids)

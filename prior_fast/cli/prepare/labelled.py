"""Common parts of the `prepare` commands of labelled datasets (images with labels, boxes or masks, without reports)."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prior_fast.prepare.labelled.labelled_source import LabelledSource

CHEXPERT_FOLDER = "folder with train.csv, valid.csv, train/ and valid/, or its parent"


def add_labelled(
    layouts: "argparse._SubParsersAction", name: str, what: str, folder: str, images: str, run: Callable
) -> argparse.ArgumentParser:
    """Add a labelled dataset to the layouts of `prepare`.

    Args:
        what: the dataset, in words.
        folder: an example of what --images names.
        images: the help of --images.
        run: makes the dataset from the arguments.
    """
    parser = layouts.add_parser(
        name,
        help=what,
        description=f"Prepare {what}. Images that can't be used are named in rejected.csv (docs/datasets.md).",
        epilog=f"example: prior-fast prepare {name} --images {folder} --out prepared-{name}",
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=images)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the new dataset")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--strict", action="store_true", help="stop at the first unusable file or row, exit code 1")
    parser.add_argument(
        "--split-lists",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="add a split from the lists train.txt, validate.txt (or val.txt) and test.txt in DIR, and from "
        "train-1.txt and train-10.txt if they exist; may be given several times",
    )
    parser.set_defaults(run=run)
    return parser


def prepare(args: argparse.Namespace, read: "Callable[[], LabelledSource]") -> int:
    """Make the dataset and print what was kept, its splits and what was left out."""
    from prior_fast.prepare.labelled.pipeline import LabelledOptions, prepare_labelled
    from prior_fast.processes import usable_cores

    workers = usable_cores() if args.workers is None else args.workers
    show_labelled(
        prepare_labelled(read, LabelledOptions(args.out, workers, args.strict, tuple(args.split_lists))), args.out
    )
    return 0


def show_labelled(info: dict[str, Any], out: Path) -> None:
    """Print labels, splits and what was left out."""
    from prior_fast.console import print_table, stderr, stdout

    for note in info["notes"]:
        stderr.print(note)
    labels = [(name, *counts.values()) for name, counts in info["labels"].items()]
    print_table("Labels", ("label", "positive", "negative", "uncertain", "blank"), labels)
    parts = ("train", "train-10", "train-1", "validate", "test")
    splits = [(name, *(split[part] for part in parts)) for name, split in info["splits"].items()]
    print_table("Splits, images", ("split", *parts), splits)
    if info["rejected"]:
        rows = [(row["reason"], row["lines"]) for row in info["reasons"]]
        print_table("Left out (rejected.csv names each)", ("reason", "lines"), rows)
    stdout.print(f"{out}: {info['images']} images of {info['patients']} patients in {info['seconds']} s.")

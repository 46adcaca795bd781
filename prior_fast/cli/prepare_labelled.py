"""`prior-fast prepare chexpert|chexpert5x200|rsna|siim`: images with labels, boxes or masks, without reports."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prior_fast.errors import UsageError

if TYPE_CHECKING:
    from prior_fast.prepare.labelled.labelled_source import LabelledSource

_CHEXPERT_FOLDER = "folder with train.csv, valid.csv, train/ and valid/, or its parent"


def add_parsers(layouts: "argparse._SubParsersAction") -> None:
    """Add the four datasets to the layouts of `prepare`."""
    _add_chexpert(layouts)
    _add_5x200(layouts)
    text = "folder with stage_2_train_images/ and stage_2_train_labels.csv"
    _add(layouts, "rsna", "RSNA Pneumonia Detection, stage 2: boxes", "rsna", text, _run_rsna)
    text = "folder with dicom-images-train/ and train-rle.csv or stage_2_train.csv"
    _add(layouts, "siim", "SIIM-ACR Pneumothorax Segmentation: masks", "siim", text, _run_siim)


def _add(
    layouts: "argparse._SubParsersAction", name: str, what: str, folder: str, images: str, run: Callable
) -> argparse.ArgumentParser:
    parser = layouts.add_parser(
        name,
        help=what,
        description=f"Prepare {what}. Images that can't be used are named in rejected.csv (docs/datasets.md).",
        epilog=f"example: prior-fast prepare {name} --images {folder} --out prepared-{name}",
    )
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=images)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset's folder, not there yet")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--strict", action="store_true", help="stop at the first thing that can't be used, exit code 1")
    parser.add_argument(
        "--split-lists",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="one more split, of the lists train.txt, validate.txt (or val.txt), test.txt in DIR, and of train-1.txt "
        "and train-10.txt where they are there; may be given several times",
    )
    parser.set_defaults(run=run)
    return parser


def _add_chexpert(layouts: "argparse._SubParsersAction") -> None:
    what = "CheXpert-v1.0 or CheXpert-v1.0-small: 14 labels"
    parser = _add(layouts, "chexpert", what, "CheXpert-v1.0-small", _CHEXPERT_FOLDER, _run_chexpert)
    parser.add_argument(
        "--exclude",
        type=Path,
        metavar="LIST",
        help="images that the split mgca leaves out: a path in each line, a csv with a column Path, or a 5x200 JSON "
        "(default: what GLoRIA's 5x200 rule draws with seed 0, as MGCA does)",
    )


def _add_5x200(layouts: "argparse._SubParsersAction") -> None:
    what = "CheXpert 5x200: 200 images of train.csv for each of five findings"
    parser = _add(layouts, "chexpert5x200", what, "CheXpert-v1.0-small", _CHEXPERT_FOLDER, _run_5x200)
    given = parser.add_mutually_exclusive_group()
    given.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="the images: the JSON of PRIOR's authors, or a csv with Path and labels",
    )
    given.add_argument(
        "--rule",
        choices=("prior", "gloria"),
        default="prior",
        help="draw the images: 'prior', one of the five alone, uncertain mapped (default); 'gloria', no other label",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="which draw (default: 0)")
    parser.add_argument("--per-class", type=int, metavar="N", help="images of each (default: 200)")


def _run_chexpert(args: argparse.Namespace) -> int:
    from prior_fast.prepare.labelled.chexpert import read_chexpert

    return _prepare(args, lambda: read_chexpert(args.images, args.exclude))


def _run_5x200(args: argparse.Namespace) -> int:
    from prior_fast.prepare.labelled.chexpert5x200 import read_5x200

    if args.list is not None and (args.seed, args.per_class) != (None, None):
        raise UsageError("--seed and --per-class are for drawing a list: leave them out where --list gives one")
    seed, per_class = args.seed or 0, 200 if args.per_class is None else args.per_class
    return _prepare(args, lambda: read_5x200(args.images, args.list, args.rule, seed, per_class))


def _run_rsna(args: argparse.Namespace) -> int:
    from prior_fast.prepare.labelled.rsna import read_rsna

    return _prepare(args, lambda: read_rsna(args.images))


def _run_siim(args: argparse.Namespace) -> int:
    from prior_fast.prepare.labelled.siim import read_siim

    return _prepare(args, lambda: read_siim(args.images))


def _prepare(args: argparse.Namespace, read: "Callable[[], LabelledSource]") -> int:
    """Make the dataset and print what was kept, its splits and what was left out."""
    from prior_fast.prepare.labelled.pipeline import LabelledOptions, prepare_labelled
    from prior_fast.processes import usable_cores

    workers = usable_cores() if args.workers is None else args.workers
    _show(prepare_labelled(read, LabelledOptions(args.out, workers, args.strict, tuple(args.split_lists))), args.out)
    return 0


def _show(info: dict[str, Any], out: Path) -> None:
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

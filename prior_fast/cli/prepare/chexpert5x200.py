"""`prior-fast prepare chexpert5x200`: 200 images of CheXpert for each of five findings."""

import argparse
from pathlib import Path

from prior_fast.cli.prepare.labelled import CHEXPERT_FOLDER, add_labelled, prepare
from prior_fast.errors import UsageError


def add_parser(layouts: "argparse._SubParsersAction") -> None:
    """Add the layout `chexpert5x200`."""
    what = "CheXpert 5x200: 200 images of train.csv for each of five findings"
    parser = add_labelled(layouts, "chexpert5x200", what, "CheXpert-v1.0-small", CHEXPERT_FOLDER, run)
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
        help="how to draw the images: 'prior': exactly one of the five findings, with uncertain labels mapped to 0 or "
        "1 (default); 'gloria': no other label except No Finding",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="seed of the draw (default: 0)")
    parser.add_argument("--per-class", type=int, metavar="N", help="images of each finding (default: 200)")


def run(args: argparse.Namespace) -> int:
    """Make the dataset and print what was kept."""
    from prior_fast.prepare.labelled.chexpert5x200 import read_5x200

    if args.list is not None and (args.seed, args.per_class) != (None, None):
        raise UsageError("--seed and --per-class are for drawing a list: leave them out where --list gives one")
    seed, per_class = args.seed or 0, 200 if args.per_class is None else args.per_class
    return prepare(args, lambda: read_5x200(args.images, args.list, args.rule, seed, per_class))

"""`prior-fast prepare chexpert`: frontal images of CheXpert with their 14 labels."""

import argparse
from pathlib import Path

from prior_fast.cli.prepare.labelled import CHEXPERT_FOLDER, add_labelled, prepare


def add_parser(layouts: "argparse._SubParsersAction") -> None:
    """Add the layout `chexpert`."""
    what = "CheXpert-v1.0 or CheXpert-v1.0-small: 14 labels"
    parser = add_labelled(layouts, "chexpert", what, "CheXpert-v1.0-small", CHEXPERT_FOLDER, run)
    parser.add_argument(
        "--exclude",
        type=Path,
        metavar="LIST",
        help="images that the split mgca leaves out: one path per line, a csv with a column Path, or a 5x200 JSON "
        "(default: the images that GLoRIA's 5x200 rule draws with seed 0, as in MGCA)",
    )


def run(args: argparse.Namespace) -> int:
    """Make the dataset and print what was kept."""
    from prior_fast.prepare.labelled.chexpert import read_chexpert

    return prepare(args, lambda: read_chexpert(args.images, args.exclude))

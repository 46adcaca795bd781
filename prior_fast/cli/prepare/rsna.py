"""`prior-fast prepare rsna`: images with boxes around lung opacities."""

import argparse

from prior_fast.cli.prepare.labelled import add_labelled, prepare


def add_parser(layouts: "argparse._SubParsersAction") -> None:
    """Add the layout `rsna`."""
    images = "folder with stage_2_train_images/ and stage_2_train_labels.csv"
    add_labelled(layouts, "rsna", "RSNA Pneumonia Detection, stage 2: boxes", "rsna", images, run)


def run(args: argparse.Namespace) -> int:
    """Make the dataset and print what was kept."""
    from prior_fast.prepare.labelled.rsna import read_rsna

    return prepare(args, lambda: read_rsna(args.images))

"""`prior-fast prepare siim`: images with masks of pneumothoraces."""

import argparse

from prior_fast.cli.prepare.labelled import add_labelled, prepare


def add_parser(layouts: "argparse._SubParsersAction") -> None:
    """Add the layout `siim`."""
    images = "folder with dicom-images-train/ and train-rle.csv or stage_2_train.csv"
    add_labelled(layouts, "siim", "SIIM-ACR Pneumothorax Segmentation: masks", "siim", images, run)


def run(args: argparse.Namespace) -> int:
    """Make the dataset and print what was kept."""
    from prior_fast.prepare.labelled.siim import read_siim

    return prepare(args, lambda: read_siim(args.images))

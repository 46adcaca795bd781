"""`prior-fast prepare`: makes a dataset from the files of a public one. Each layout has a module in this folder."""

import argparse
import importlib

# In the order of --help.
LAYOUTS = ("mimic", "merge", "chexpert", "chexpert5x200", "rsna", "siim")


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `prepare`."""
    prepare = subparsers.add_parser(
        "prepare",
        help="make a prepared dataset (X-rays with reports) or a labelled dataset",
        description="Make a prepared dataset or a labelled dataset: each X-ray is decoded and resized once, each "
        "sentence is tokenized once.",
        epilog="example: prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 "
        "--out prepared",
    )
    layouts = prepare.add_subparsers(dest="layout", required=True, metavar="LAYOUT|merge")
    for layout in LAYOUTS:
        importlib.import_module(f"prior_fast.cli.prepare.{layout}").add_parser(layouts)

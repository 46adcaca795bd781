"""Common parts of the `prepare` commands of labelled datasets (images with labels, boxes or masks, without reports)."""

import argparse
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from prior_fast.cli.parser import examples
from prior_fast.cli.prepare.stopping import until_stopped


def fill(parser: argparse.ArgumentParser, name: str, module: ModuleType) -> None:
    """Complete the parser of a layout.

    Args:
        module: the layout: HELP, EXAMPLE, IMAGES (the help of --images), read, and add_options if it has options of its
            own (CONTRIBUTING.md).
    """
    parser.description = (
        f"Prepare {module.HELP}. Images that can't be used are named in rejected.csv (docs/datasets.md)."
    )
    parser.epilog = examples(f"prior-fast prepare {name} {module.EXAMPLE} --out prepared-{name}")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=module.IMAGES)
    if hasattr(module, "add_options"):
        module.add_options(parser)
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
    parser.add_argument(
        "--max-image-pixels",
        default="64M",
        metavar="N",
        help="leave out images with more pixels (default: 64M)",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="decode only part I of N (the first is 1/N); the same command without it then makes the dataset",
    )
    parser.set_defaults(run=partial(run, module))


def run(module: ModuleType, args: argparse.Namespace) -> int:
    """Make the dataset and print what was kept, its splits and what was left out."""
    from prior_fast.prepare.labelled.pipeline import LabelledOptions, prepare_labelled
    from prior_fast.prepare.shard import Shard
    from prior_fast.processes import usable_cores
    from prior_fast.radiology.limits import limited_pixels, parse_pixels

    workers = usable_cores() if args.workers is None else args.workers
    shard = None if args.shard is None else Shard.parse(args.shard)
    options = LabelledOptions(args.out, workers, args.strict, tuple(args.split_lists), shard)
    with limited_pixels(parse_pixels(args.max_image_pixels)):
        return until_stopped(lambda: show_labelled(prepare_labelled(lambda: module.read(args), options), args.out))


def show_labelled(info: dict[str, Any], out: Path) -> None:
    """Print labels, splits and what was left out."""
    from prior_fast.console import print_table, stderr, stdout

    if "shard" in info:
        done = f"Shard {info['shard']} is complete: {info['images']} images in {info['seconds']} s"
        stdout.print(f"{done}; when all are, give the same command without --shard.")
        return
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

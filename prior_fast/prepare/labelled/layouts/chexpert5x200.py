"""CheXpert 5x200: 200 images of CheXpert's train.csv for each of five findings, from a list or drawn by a rule."""

import argparse
import json
from pathlib import Path
from typing import Any

from prior_fast.data.labelled_dataset import PERCENTAGES
from prior_fast.errors import UsageError
from prior_fast.prepare.labelled.chexpert_table import FOLDERS, find_root, read_table
from prior_fast.prepare.labelled.draw_5x200 import draw, read_list
from prior_fast.prepare.labelled.files import need
from prior_fast.prepare.labelled.labelled_source import Candidate, LabelledSource
from prior_fast.prepare.labelled.layouts.chexpert import IMAGES, decode
from prior_fast.prepare.labelled.splits import Pool
from prior_fast.prepare.labelled.write import SplitLists
from prior_fast.radiology.labels import FIVE_CLASSES

HELP = "CheXpert 5x200: 200 images of train.csv for each of five findings"
EXAMPLE = "--images CheXpert-v1.0-small"
__all__ = ["EXAMPLE", "HELP", "IMAGES", "add_options", "read", "read_5x200"]

LIST_FILE = "list.json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this dataset alone."""
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


def read(args: argparse.Namespace) -> LabelledSource:
    """The dataset that the arguments name.

    Raises:
        UsageError: a seed or a number of images is given for a list that is not drawn.
    """
    if args.list is not None and (args.seed, args.per_class) != (None, None):
        raise UsageError("--seed and --per-class are for drawing a list: leave them out where --list gives one")
    seed, per_class = args.seed or 0, 200 if args.per_class is None else args.per_class
    return read_5x200(args.images, args.list, args.rule, seed, per_class)


def read_5x200(
    images: Path, given: Path | None = None, rule: str = "prior", seed: int = 0, per_class: int = 200
) -> LabelledSource:
    """The images of a given list, or of a list drawn from train.csv, with the finding of each.

    Raises:
        UsageError: the list or train.csv can't be used, or the rule finds no image.
    """
    if not 0 <= seed < 2**32 or per_class < 1:
        raise UsageError(f"--seed {seed} --per-class {per_class}: give a seed from 0 to 2**32 - 1, and 1 image or more")
    facts: dict[str, Any]
    if given is None:
        root = find_root(images)
        drawn = draw(read_table(need(root, "train.csv")), rule, seed, per_class)
        entries = {str(row.number): _entry(row.path, number) for row, number in drawn.chosen}
        texts = {LIST_FILE: json.dumps(entries, indent=1) + "\n"}
        facts = {"rule": rule, "seed": seed, "of_the_rule": dict(zip(FIVE_CLASSES, drawn.pools))}
        notes = [
            f"{name}: the rule finds {count} image(s), not {per_class}; all were taken"
            for name, count in zip(FIVE_CLASSES, drawn.pools)
            if count < per_class
        ]
        if not entries:
            raise UsageError(
                f"{root / 'train.csv'}: the rule {rule} finds no image of any of {', '.join(FIVE_CLASSES)}"
            )
    else:
        root, notes, texts, facts = _root_for_list(images), [], {}, {"list": given.name}
        entries = {path: _entry(path, number) for path, number in read_list(given)}
    candidates = [_candidate(root, entry) for entry in entries.values()]
    return LabelledSource(
        "chexpert5x200", FIVE_CLASSES, root, candidates, decode, _all_is_test, notes=notes, facts=facts, texts=texts
    )


def _entry(path: str, number: int) -> dict[str, Any]:
    return {"image_path": path, "label": [int(place == number) for place in range(len(FIVE_CLASSES))]}


def _candidate(root: Path, entry: dict[str, Any]) -> Candidate:
    path = entry["image_path"]
    return Candidate(root / path, path, path.split("/")[1], tuple(map(float, entry["label"])))


def _root_for_list(images: Path) -> Path:
    """Like `find_root`, but train.csv may be missing."""
    folder = next(
        (folder for folder in (images, *(images / name for name in FOLDERS)) if (folder / "train").is_dir()), None
    )
    return folder or need(images, "train").parent


def _all_is_test(pool: Pool) -> dict[str, SplitLists]:
    rule = "all images are to test, for zero-shot classification and retrieval"
    return {"all": SplitLists(rule, {percent: [] for percent in PERCENTAGES}, [], pool.ids)}

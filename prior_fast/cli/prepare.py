"""`prior-fast prepare`: a tree in MIMIC-CXR's layout becomes a prepared dataset."""

import argparse
from pathlib import Path
from typing import Any

_EXAMPLE = "example: prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 --out prepared"


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `prepare`."""
    prepare = subparsers.add_parser(
        "prepare",
        help="make a prepared dataset from a tree of X-rays and reports",
        description="Make a prepared dataset: each X-ray decoded and resized once, each sentence tokenized once.",
        epilog=_EXAMPLE,
    )
    layouts = prepare.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    parser = layouts.add_parser(
        "mimic",
        help="a tree in MIMIC-CXR-JPG's layout",
        description="Prepare the frontal X-rays of MIMIC-CXR-JPG whose reports have enough sentences, in MIMIC's own "
        "split. A run that was stopped goes on where it was when the same command is given again.",
        epilog=_EXAMPLE,
    )
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="root of the tree, with mimic-cxr-2.0.0-metadata.csv[.gz] and files/, or its folder files",
    )
    parser.add_argument(
        "--reports", type=Path, metavar="DIR", help="root of the reports' tree, unzipped (default: that of the images)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset's folder, not there yet")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--strict", action="store_true", help="stop at the first missing or broken file, exit code 1")
    parser.add_argument(
        "--tokenizer",
        default="train",
        metavar="T",
        help="'train' for a vocabulary of the training reports (default), or a Hugging Face name or folder",
    )
    parser.add_argument(
        "--min-sentences", type=int, default=4, metavar="N", help="leave out reports with fewer (default: 4)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset and print what was kept and what was left out."""
    from prior_fast.data.prepare.pipeline import Settings, prepare_mimic
    from prior_fast.processes import usable_cores

    settings = Settings(
        images=args.images,
        out=args.out,
        reports=args.reports,
        workers=usable_cores() if args.workers is None else args.workers,
        strict=args.strict,
        tokenizer=args.tokenizer,
        min_sentences=args.min_sentences,
    )
    _show(prepare_mimic(settings), args.out)
    return 0


def _show(report: dict[str, Any], out: Path) -> None:
    from prior_fast.console import print_table, stderr, stdout

    for note in report["notes"]:
        stderr.print(note)
    columns = ("studies", "images", "sentences")
    rows = [(split, *(counts[name] for name in columns)) for split, counts in report["splits"].items()]
    total = ("all", *(sum(counts[name] for counts in report["splits"].values()) for name in columns))
    print_table("Prepared", ("split", *columns), [*rows, total])
    if report["rejected"]:
        rejected = [(row["reason"], row["studies"], row["files"]) for row in report["rejected"]]
        print_table("Left out (rejected.csv names each)", ("reason", "studies", "files"), rejected)
    if report.get("already_done"):
        stdout.print(f"{out} was already prepared from these inputs with these settings; nothing was changed.")
        return
    speed = report["images_per_second_per_core"]
    stdout.print(f"{out}: {speed} images per second and core, {report['seconds']} s with {report['workers']} workers.")

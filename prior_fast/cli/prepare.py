"""`prior-fast prepare`: the files of a public dataset become a prepared dataset."""

import argparse
from pathlib import Path
from typing import Any

from prior_fast.cli import prepare_labelled

_EXAMPLE = "example: prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 --out prepared"
_SHARDS_EXAMPLE = """examples:
  prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 --out prepared
in 2 jobs, on any machines that see the same folders, and then the merge:
  prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 --out prepared --shard 1/2
  prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 --out prepared --shard 2/2
  prior-fast prepare merge --out prepared"""
_MERGE_EXAMPLE = "example: prior-fast prepare merge --out prepared"


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `prepare`."""
    prepare = subparsers.add_parser(
        "prepare",
        help="make a prepared dataset from a tree of X-rays, with reports or with labels",
        description="Make a prepared dataset: each X-ray decoded and resized once, each sentence tokenized once.",
        epilog=_EXAMPLE,
    )
    layouts = prepare.add_subparsers(dest="layout", required=True, metavar="LAYOUT|merge")
    _add_mimic(layouts)
    _add_merge(layouts)
    prepare_labelled.add_parsers(layouts)


def _add_mimic(layouts: "argparse._SubParsersAction") -> None:
    parser = layouts.add_parser(
        "mimic",
        help="a tree in MIMIC-CXR-JPG's layout",
        description="Prepare the frontal X-rays of MIMIC-CXR-JPG whose reports have enough sentences, in MIMIC's own\n"
        "split. A run that was stopped goes on where it was when the same command is given again.",
        epilog=_SHARDS_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    parser.add_argument(
        "--decode",
        choices=("exact", "fast"),
        default="exact",
        help="fast reduces JPEGs while it decodes them; pixels then differ a little (default: exact)",
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="prepare part I of N alone, the first is 1/N; `prepare merge` joins them"
    )
    parser.set_defaults(run=run)


def _add_merge(layouts: "argparse._SubParsersAction") -> None:
    parser = layouts.add_parser(
        "merge",
        help="make one dataset of what `prepare mimic --shard` prepared",
        description="Make the dataset of its shards, once all are complete: the same, byte for byte, as that of a run "
        "without shards. Options and trees are those of the shards.",
        epilog=_MERGE_EXAMPLE,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the --out of the shards")
    parser.set_defaults(run=run_merge)


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset, or a shard of it, and print what was kept and what was left out."""
    from prior_fast.prepare.studies.options import PrepareOptions
    from prior_fast.prepare.studies.pipeline import prepare_mimic
    from prior_fast.prepare.studies.shards import Shard, prepare_shard
    from prior_fast.processes import usable_cores

    options = PrepareOptions(
        images=args.images,
        out=args.out,
        reports=args.reports,
        workers=usable_cores() if args.workers is None else args.workers,
        strict=args.strict,
        tokenizer=args.tokenizer,
        min_sentences=args.min_sentences,
        decode=args.decode,
    )
    if args.shard is None:
        _show(prepare_mimic(options), args.out)
    else:
        _show(prepare_shard(options, Shard.parse(args.shard)), args.out)
    return 0


def run_merge(args: argparse.Namespace) -> int:
    """Merge the shards and print what was kept and what was left out."""
    from prior_fast.prepare.studies.merge import merge_shards

    _show(merge_shards(args.out), args.out)
    return 0


def _show(report: dict[str, Any], out: Path) -> None:
    from prior_fast.console import print_table, stderr, stdout

    for note in report["notes"]:
        stderr.print(note)
    columns = ("studies", "images", "sentences")
    rows = [(split, *(counts[name] for name in columns)) for split, counts in report["splits"].items()]
    total = ("all", *(sum(counts[name] for counts in report["splits"].values()) for name in columns))
    shard = report.get("shard")
    print_table(f"Prepared, shard {shard}" if shard else "Prepared", ("split", *columns), [*rows, total])
    if report["rejected"]:
        rejected = [(row["reason"], row["studies"], row["files"]) for row in report["rejected"]]
        where = "rejected.csv of the merged dataset" if shard else "rejected.csv"
        print_table(f"Left out ({where} names each)", ("reason", "studies", "files"), rejected)
    stdout.print(_last_line(report, out))


def _last_line(report: dict[str, Any], out: Path) -> str:
    if report.get("already_done"):
        return f"{out} was already prepared from these inputs with these settings; nothing was changed."
    speed = f"{report['images_per_second_per_core'] or 0} images per second and core"
    if "shard" in report:
        where = f"Shard {report['shard']} is complete in {report['partial']}"
        merge = f"when all are: prior-fast prepare merge --out {out}"
        return f"{where}: {speed}, {report['seconds']} s with {report['workers']} workers; {merge}"
    if "shards" in report:
        return f"{out}: merged from {report['shards']} shards in {report['seconds']} s; they were prepared at {speed}."
    return f"{out}: {speed}, {report['seconds']} s with {report['workers']} workers."

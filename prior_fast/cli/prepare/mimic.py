"""`prior-fast prepare mimic`: MIMIC-CXR-JPG and its reports, whole or in shards."""

import argparse
from pathlib import Path

from prior_fast.cli.prepare.shown import show

_EXAMPLES = """examples:
  prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 --out prepared
in 2 jobs, on any machines that share the folders, and then the merge:
  prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 --out prepared --shard 1/2
  prior-fast prepare mimic --images mimic-cxr-jpg/2.0.0 --reports mimic-cxr/2.0.0 --out prepared --shard 2/2
  prior-fast prepare merge --out prepared"""


def add_parser(layouts: "argparse._SubParsersAction") -> None:
    """Add the layout `mimic`."""
    parser = layouts.add_parser(
        "mimic",
        help="a tree in MIMIC-CXR-JPG's layout",
        description="Prepare the frontal X-rays of MIMIC-CXR-JPG whose reports have enough sentences, in MIMIC's own\n"
        "split. A stopped run resumes when the same command is given again.",
        epilog=_EXAMPLES,
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
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the new dataset")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--strict", action="store_true", help="stop at the first missing or broken file, exit code 1")
    parser.add_argument(
        "--tokenizer",
        default="train",
        metavar="T",
        help="'train' for a vocabulary of the training reports (default), or a Hugging Face name or folder",
    )
    parser.add_argument(
        "--min-sentences", type=int, default=4, metavar="N", help="leave out reports with fewer sentences (default: 4)"
    )
    parser.add_argument(
        "--decode",
        choices=("exact", "fast"),
        default="exact",
        help="fast: reduce JPEGs while decoding, which changes pixels slightly (default: exact)",
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="prepare only part I of N (the first is 1/N); `prepare merge` joins the parts"
    )
    parser.set_defaults(run=run)


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
        show(prepare_mimic(options), args.out)
    else:
        show(prepare_shard(options, Shard.parse(args.shard)), args.out)
    return 0

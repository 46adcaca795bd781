"""`prior-fast bench compare`: what became faster or slower between two result files."""

import argparse
from pathlib import Path

from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `compare`."""
    parser = subparsers.add_parser(
        "compare",
        help="two result files: what became faster or slower",
        description="Compare two result files of one kind (kernels.json, train.json or loader.json). A row counts as "
        "changed if the spreads of its times do not overlap and the medians differ by more than the share. "
        "Exit code 1 if a row of ours became slower.",
        epilog=examples("prior-fast bench compare before/kernels.json after/kernels.json --over 0.05"),
    )
    parser.add_argument("before", type=Path, metavar="A.json", help="the earlier file")
    parser.add_argument("after", type=Path, metavar="B.json", help="the later file, of the same kind")
    parser.add_argument(
        "--over", type=float, default=0.1, metavar="SHARE", help="ignore smaller changes (default: 0.1)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.measure.compare_reports import compare_files

    return compare_files(args.before, args.after, args.over)

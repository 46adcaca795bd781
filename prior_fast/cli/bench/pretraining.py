"""`prior-fast bench pretraining`: fine-tuned tasks with and without pre-training."""

import argparse
from pathlib import Path

from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `pretraining`."""
    parser = subparsers.add_parser(
        "pretraining",
        help="compare fine-tuned runs with weights=checkpoint and weights=random",
        description="Compare outputs of `prior-fast evaluate classification|segmentation|detection`: each folder "
        "NAME-checkpoint with NAME-random beside it. The two may differ only in the setting weights.",
        epilog="bench/tasks.sh makes such runs on made-up data.\n\n"
        + examples("prior-fast bench pretraining runs --out runs"),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the outputs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for pretraining.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.measure.bench_pretraining import compare_runs

    compare_runs(args.folder, args.out)
    return 0

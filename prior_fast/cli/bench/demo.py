"""`prior-fast bench demo`: five lines that say what the demo reached."""

import argparse
from pathlib import Path

from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="say in five lines what a model reached, beside chance and beside training with labels",
        description="Read the metrics.json files in DIR/zero-shot, DIR/retrieval, DIR/generation and DIR/bank, which "
        "`prior-fast evaluate` wrote. Print one line for each part of the model, with chance beside each value, and "
        "name openly what is no better than chance. DIR/summary.json gets the same.",
        epilog=examples("prior-fast bench demo demo --ceiling bench/results/cpu-2-cores/demo-ceiling.json"),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the results, as `make demo` leaves it")
    parser.add_argument(
        "--ceiling", type=Path, metavar="FILE.json", help="file of `prior-fast bench ceiling`, to show its values too"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.measure.demo.summary import summarize_demo

    summarize_demo(args.folder, args.ceiling)
    return 0

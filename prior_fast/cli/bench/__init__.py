"""`prior-fast bench`: measurements. Each task has a module in this folder and its name in TASKS."""

import argparse
import importlib

from prior_fast.cli.parser import examples

TASKS = (
    *("kernels", "convolutions", "train", "loader", "memory", "pretraining", "ceiling", "demo"),
    *("compare", "page", "picture", "predict"),
)


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `bench`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure: tables and plots",
        description="Measure prior-fast on this machine.",
        epilog=examples("prior-fast bench train --preset tiny --batch 16 --out bench-train"),
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    for task in TASKS:
        importlib.import_module(f"prior_fast.cli.bench.{task}").add_parser(tasks)

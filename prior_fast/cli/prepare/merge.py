"""`prior-fast prepare merge`: joins the shards that several jobs prepared into one dataset."""

import argparse
from pathlib import Path

from prior_fast.cli.parser import examples
from prior_fast.cli.prepare.shown import show
from prior_fast.cli.prepare.stopping import until_stopped


def add_parser(layouts: "argparse._SubParsersAction") -> None:
    """Add `merge`."""
    parser = layouts.add_parser(
        "merge",
        help="join the shards of `prepare LAYOUT --shard` into one dataset",
        description="Join the shards of a dataset, once all are complete. The dataset equals that of a run without "
        "shards, byte for byte. Options and trees are those of the shards.",
        epilog=examples("prior-fast prepare merge --out prepared"),
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the --out of the shards")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Merge the shards and print what was kept and what was left out."""
    from prior_fast.prepare.studies.merge import merge_shards

    return until_stopped(lambda: show(merge_shards(args.out), args.out))

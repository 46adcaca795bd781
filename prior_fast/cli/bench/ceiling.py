"""`prior-fast bench ceiling`: what the image encoder reaches with labels."""

import argparse
from pathlib import Path

from prior_fast.cli.inputs import look_at_dataset
from prior_fast.cli.parser import examples
from prior_fast.cli.run_settings import RUN_SETTINGS
from prior_fast.cli.settings import take_settings


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `ceiling`."""
    parser = subparsers.add_parser(
        "ceiling",
        help="train the image encoder with labels, for as long as a run took, as a ceiling for its figures",
        description="Train the image encoder of a preset with the labels of a prepared dataset instead of its reports, "
        "for as long as a run took, and measure zero-shot's and retrieval's figures on the test split. For retrieval "
        "the labels of each report are known.",
        epilog=examples(
            "prior-fast bench ceiling --data prepared --like run --out ceiling.json",
            "prior-fast bench ceiling --data prepared --epochs 5 --out ceiling.json batch_size=32",
        ),
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a prepared dataset")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="the file for the result")
    parser.add_argument("--preset", default="tiny", metavar="NAME", help="paper, released or tiny (default: tiny)")
    parser.add_argument("--like", type=Path, metavar="RUN", help="train for as many seconds as this run did")
    parser.add_argument("--epochs", type=int, default=0, metavar="N", help="train for N epochs, instead of --like")
    take_settings(parser, RUN_SETTINGS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    look_at_dataset(args.data)
    from prior_fast.console import busy

    with busy("loading PyTorch"):
        from prior_fast.measure.demo.ceiling import CeilingOptions, run_ceiling

    names = ("data", "out", "preset", "like", "epochs", "settings")
    run_ceiling(CeilingOptions(**{name: getattr(args, name) for name in names}))
    return 0

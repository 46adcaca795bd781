"""`prior-fast bench picture`: the ladder, the loader and the ops in one picture."""

import argparse
from pathlib import Path

from prior_fast.cli.inputs import look_at_file
from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `picture`."""
    parser = subparsers.add_parser(
        "picture",
        help="the ladder, the loader and the ops in one picture",
        description="Draw one picture from three result files of one machine.",
        epilog=examples(
            "prior-fast bench picture --train train.json --loader loader.json --kernels kernels.json --out speed.png"
        ),
    )
    for name in ("train", "loader", "kernels"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="FILE.json", help=f"file of bench {name}")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png", help="the picture")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    for name in ("train", "loader", "kernels"):
        look_at_file(getattr(args, name), f"--{name}")
    from prior_fast.console import busy, stdout

    with busy("loading PyTorch"):
        from prior_fast.measure.page.picture import draw_picture

    draw_picture(args.train, args.loader, args.kernels, args.out)
    stdout.print(f"wrote {args.out}")
    return 0

"""`prior-fast bench train`: the ladder of a training step."""

import argparse
from pathlib import Path

from prior_fast.cli.inputs import look_at_dataset
from prior_fast.cli.parser import examples
from prior_fast.cli.run_settings import RUN_SETTINGS
from prior_fast.cli.settings import take_settings


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `train`."""
    parser = subparsers.add_parser(
        "train",
        help="a training step, from plain PyTorch to what `prior-fast train` does, rung by rung",
        description="Measure a training step of one model with one set of weights: (a) plain, padded PyTorch with "
        "loops over samples, (b) vectorized, (c) without padding, (d) with exact rewrites, (e) with torch.compile, (f) "
        "with kernels and the compiled solver. Every rung is first checked to compute what (a) computes. Weights are "
        "random. Exit code 1 if a rung computes something else.",
        epilog=examples(
            "prior-fast bench train --preset paper --width-divisor 4 --batch 16 --out bench-train",
            "prior-fast bench train --preset tiny --batch 32 precision=fp32 device=cpu",
        ),
    )
    parser.add_argument("--preset", default="paper", metavar="NAME", help="paper, released or tiny (default: paper)")
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), default=3, help="training stage (default: 3)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="pairs per step (default: 16)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="timed steps of each rung (default: 10)")
    parser.add_argument("--warm-up", type=int, default=2, metavar="N", help="steps before the timed ones (default: 2)")
    parser.add_argument(
        "--width-divisor",
        type=int,
        default=1,
        metavar="N",
        help="divide every width by N, at the same depths (default: 1)",
    )
    parser.add_argument(
        "--mean-tokens", type=int, default=90, metavar="N", help="mean tokens of a made-up report (default: 90)"
    )
    parser.add_argument(
        "--rungs", default="", metavar="LETTERS", help="rungs to measure (default: abcdef, without e on a CPU)"
    )
    parser.add_argument(
        "--count-compiled",
        action="store_true",
        help="also count the calls of the head compiled by torch.compile; takes minutes on a CPU",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="a prepared dataset, instead of made-up reports")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for train.json, train.md and train.png")
    take_settings(parser, RUN_SETTINGS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    look_at_dataset(args.data)
    from prior_fast.console import busy

    with busy("loading PyTorch"):
        from prior_fast.measure.ladder.bench_ladder import LadderOptions, run_ladder

    names = (
        *("preset", "stage", "batch", "steps", "warm_up", "width_divisor", "mean_tokens", "rungs", "count_compiled"),
        *("data", "out"),
    )
    run_ladder(LadderOptions(**{name: getattr(args, name) for name in names}, settings=args.settings))
    return 0

"""`prior-fast bench memory`: what a training step keeps in memory."""

import argparse
from pathlib import Path

from prior_fast.cli.parser import examples
from prior_fast.cli.run_settings import RUN_SETTINGS
from prior_fast.cli.settings import take_settings
from prior_fast.errors import UsageError


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `memory`."""
    parser = subparsers.add_parser(
        "memory",
        help="what a training step keeps for its backward pass, and an estimate for a batch size",
        description="Count, on the CPU and at small batch sizes, what a training step keeps for its backward "
        "pass, and estimate the memory of a larger batch from it. Weights are random, reports are made up.",
        epilog="The setting precision is bf16 unless it is given, as on a GPU.\n\n"
        + examples(
            "prior-fast bench memory --preset paper --at 128 --out bench-memory",
            "prior-fast bench memory --preset tiny --at 32 precision=fp32",
        ),
    )
    parser.add_argument("--preset", default="paper", metavar="NAME", help="paper, released or tiny (default: paper)")
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), default=3, help="training stage (default: 3)")
    parser.add_argument("--batches", default="2,4,8", metavar="N,N", help="batch sizes to count (default: 2,4,8)")
    parser.add_argument("--at", type=int, default=128, metavar="N", help="batch size to estimate (default: 128)")
    parser.add_argument(
        "--width-divisor", type=int, default=1, metavar="N", help="divide every width by N (default: 1)"
    )
    parser.add_argument(
        "--mean-tokens", type=int, default=90, metavar="N", help="mean tokens of a made-up report (default: 90)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for memory.json")
    take_settings(parser, RUN_SETTINGS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.console import busy

    with busy("loading PyTorch"):
        from prior_fast.measure.bench_memory import MemoryOptions, run_memory

    try:
        batches = [int(word) for word in args.batches.split(",")]
    except ValueError:
        raise UsageError(f"--batches {args.batches}: must be whole numbers separated by commas") from None
    names = ("preset", "stage", "at", "width_divisor", "mean_tokens", "out")
    run_memory(MemoryOptions(**{name: getattr(args, name) for name in names}, batches=batches, settings=args.settings))
    return 0

"""`prior-fast bench loader`: pairs per second of each source of images."""

import argparse
from pathlib import Path

from prior_fast.cli.inputs import look_at_dataset
from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `loader`."""
    parser = subparsers.add_parser(
        "loader",
        help="pairs/s of each source of images, alone and with a consumer",
        description="Measure how fast each source delivers batches of a prepared dataset, and how long a consumer "
        "waits that spends a training step's time on each batch. Sources that can't be used here are named with the "
        "reason.",
        epilog=examples(
            "prior-fast bench loader --data prepared --out bench-loader",
            "prior-fast bench loader --data prepared --jpegs mimic-cxr-jpg/2.0.0 --workers 4",
        ),
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a prepared dataset")
    parser.add_argument("--jpegs", type=Path, metavar="DIR", help="folder it was prepared from, to measure decoding")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="pairs per batch (default: 128)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="threads or processes (default: 2)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for each figure (default: 5)")
    parser.add_argument(
        "--consumer", type=float, default=935.0, metavar="RATE", help="pairs/s that the consumer takes (default: 935)"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="device of the batches (default: auto)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for loader.json and loader.md")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    look_at_dataset(args.data)
    from prior_fast.console import busy
    from prior_fast.errors import UsageError

    with busy("loading PyTorch"):
        from prior_fast.measure.bench_loader import LoaderOptions, measure, report
        from prior_fast.training.distributed import choose_device

    for name in ("batch", "workers", "seconds", "consumer"):
        if getattr(args, name) <= 0:
            raise UsageError(f"--{name} {getattr(args, name)}: must be more than 0")
    names = ("data", "jpegs", "batch", "workers", "seconds", "consumer")
    options = LoaderOptions(**{name: getattr(args, name) for name in names}, device=choose_device(args.device))
    report(measure(options), options, args.out)
    return 0

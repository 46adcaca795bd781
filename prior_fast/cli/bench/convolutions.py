"""`prior-fast bench convolutions`: the convolutions of a training step, one by one."""

import argparse
from pathlib import Path
from time import perf_counter

from prior_fast.cli.parser import examples
from prior_fast.cli.run_settings import RUN_SETTINGS
from prior_fast.cli.settings import take_settings


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `convolutions`."""
    parser = subparsers.add_parser(
        "convolutions",
        help="each convolution of a training step, forward and both gradients, and its physical limit",
        description="Time every convolution of a training step in the step's precision: forward, gradient of the input "
        "and gradient of the weight. Compare each with the least time that this machine's memory and arithmetic allow, "
        "and sum up the time in a step. Every call is first compared with float64. Exit code 1 if a call computes a "
        "wrong result.",
        epilog=examples(
            "prior-fast bench convolutions --preset paper --batch 128 --out bench-convolutions",
            "prior-fast bench convolutions --preset tiny --batch 32 precision=fp32 cudnn_benchmark=false",
        ),
    )
    parser.add_argument("--preset", default="paper", metavar="NAME", help="paper, released or tiny (default: paper)")
    parser.add_argument(
        "--stage", type=int, choices=(1, 2, 3), default=3, help="training stage; only 3 has a decoder (default: 3)"
    )
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="images of a step (default: 128)")
    parser.add_argument(
        "--width-divisor", type=int, default=1, metavar="N", help="divide every width by N (default: 1)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="device (default: the device= setting, auto)")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="for each direction of a convolution, in seven passes (default: 0.5 on a CPU, 0.1 on a GPU)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        metavar="S",
        help="end within about S seconds: the convolutions with most operations come first; those that have not begun "
        "in time are left out and named",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for convolutions.json and convolutions.md")
    take_settings(parser, RUN_SETTINGS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    began = perf_counter()  # --limit includes the time that loading torch takes
    from prior_fast.console import busy, progress

    with busy("loading PyTorch"):
        from prior_fast.measure.convolutions.bench_convolutions import ConvolutionOptions, run_convolutions
        from prior_fast.measure.convolutions.report import show
        from prior_fast.measure.kernels.schedule import Limit

    names = ("preset", "stage", "batch", "width_divisor", "device", "seconds", "out", "settings")
    options = ConvolutionOptions(**{name: getattr(args, name) for name in names}, limit=Limit(args.limit, began))
    with progress() as bar:
        task = bar.add_task("", total=None)
        report = run_convolutions(options, lambda name: bar.update(task, description=name, advance=1))
    show(report, options.out)
    return 0

"""`prior-fast bench predict`: what each part of a training step should take on a chip."""

import argparse
from pathlib import Path

from prior_fast.cli.inputs import look_at_file
from prior_fast.cli.parser import examples
from prior_fast.cli.run_settings import RUN_SETTINGS
from prior_fast.cli.settings import take_settings


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `predict`."""
    parser = subparsers.add_parser(
        "predict",
        help="what each part of a training step should take on a chip, from counted work",
        description="Count the operations, bytes and launches of a training step by part, without a GPU and without "
        "computing the step, and predict the time of each part from the rates of a chip and the shares of them that "
        "such code reaches. Every assumption is printed with its source.",
        epilog=examples(
            "prior-fast bench predict --preset paper --batch 128 --chip h200,a100-80",
            "prior-fast bench predict --chip h200 --beside bench/results/nvidia-h200/steps.json",
            "prior-fast bench predict --preset tiny --batch 32 --chip cpu precision=fp32",
        ),
    )
    parser.add_argument(
        "--chip",
        required=True,
        metavar="NAME",
        help="h200, h100, a100-80, a100-40, or several of them with commas; cpu: this machine, whose rates are "
        "measured first",
    )
    parser.add_argument("--preset", default="paper", metavar="NAME", help="paper, released or tiny (default: paper)")
    parser.add_argument("--stage", type=int, choices=(1, 2, 3), default=3, help="training stage (default: 3)")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="pairs of a step (default: 128)")
    parser.add_argument("--tokens", type=int, default=90, metavar="N", help="mean tokens of a report (default: 90)")
    parser.add_argument(
        "--width-divisor", type=int, default=1, metavar="N", help="divide every width by N (default: 1)"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        metavar="FILE",
        help="measured parts to show: a steps.json of bench/gpu/steps.py, or a predict.json with measured parts",
    )
    parser.add_argument(
        "--measure", action="store_true", help="measure the parts here with a profiler; on a CPU without torch.compile"
    )
    parser.add_argument(
        "--convolutions",
        action="store_true",
        help="also the least time of the three products of each transposed convolution of the image decoder",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for predict.json")
    take_settings(parser, RUN_SETTINGS)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    if not args.measure:  # which refuses --beside
        look_at_file(args.beside, "--beside")
    from prior_fast.console import busy

    with busy("loading PyTorch"):
        from prior_fast.measure.predict.predict import PredictOptions, run_predict
        from prior_fast.measure.predict.report import show

    names = (
        *("chip", "preset", "stage", "batch", "tokens", "width_divisor", "beside", "measure", "convolutions"),
        *("out", "settings"),
    )
    show(run_predict(PredictOptions(**{name: getattr(args, name) for name in names})), args.out)
    return 0

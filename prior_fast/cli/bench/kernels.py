"""`prior-fast bench kernels`: compares the public ops with their competitors and their limits."""

import argparse
from pathlib import Path
from time import perf_counter

from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the task `kernels`."""
    parser = subparsers.add_parser(
        "kernels",
        help="compare each op with plain PyTorch, torch.compile, other packages and its physical limit",
        description="Time the public ops, forward and with gradients. Compare them with everything else that computes "
        "the same on this machine, and with the least time that its memory and arithmetic allow. Every call is first "
        "compared with float64. Exit code 1 if a call computes a wrong result.",
        epilog=examples("prior-fast bench kernels --op segment_mean info_nce --out bench-kernels"),
    )
    parser.add_argument("--op", nargs="+", default=[], metavar="NAME", help="ops to measure (default: all)")
    parser.add_argument(
        "--dtype",
        nargs="+",
        default=[],
        metavar="NAME",
        help="bfloat16, float16, float32 (default: float32 on a CPU, bfloat16 and float32 on a GPU)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="device (default: auto)")
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="for each row, in seven passes (default: 0.5 on a CPU, 0.1 on a GPU)",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="time torch.compile of plain PyTorch at every shape, which takes minutes (default: only on a GPU, at "
        "PRIOR's own shapes in the first dtype)",
    )
    parser.add_argument(
        "--limit",
        type=float,
        metavar="S",
        help="end within about S seconds: PRIOR's own shapes come first; calls that have not begun in time are left "
        "out and named",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder for kernels.json, kernels.md and the plots; existing rows of other ops are kept",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    began = perf_counter()  # --limit includes the time that loading torch takes
    from prior_fast.console import busy, progress

    with busy("loading PyTorch"):
        from prior_fast.measure.kernels.bench_kernels import OpsOptions, run_kernels
        from prior_fast.measure.kernels.report import show
        from prior_fast.measure.kernels.schedule import Limit
        from prior_fast.training.distributed import choose_device

    options = OpsOptions(
        choose_device(args.device),
        ops=args.op,
        dtypes=args.dtype,
        seconds=args.seconds,
        compile=args.compile,
        out=args.out,
        limit=Limit(args.limit, began),
    )
    with progress() as bar:
        task = bar.add_task("", total=None)
        report = run_kernels(options, lambda name: bar.update(task, description=name, advance=1))
    show(report, options.out, options.ops)
    return 0

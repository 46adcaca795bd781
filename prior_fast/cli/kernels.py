"""`prior-fast kernels report`: compile every Triton kernel without a GPU, and report its resource use."""

import argparse
from pathlib import Path

from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `kernels`."""
    parser = subparsers.add_parser(
        "kernels",
        help="compile every Triton kernel without a GPU, and report its resource use",
        description="Inspect the Triton kernels without running them.",
        epilog=examples("prior-fast kernels report --arch sm_80,sm_90 --out report"),
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    task = tasks.add_parser(
        "report",
        help="registers, spills, shared memory, tensor-core instructions, occupancy, limits",
        description="Compile every version of every Triton kernel that the launchers ask for, without a GPU, and show "
        "registers, shared memory, spills, tensor-core instructions, warps on a multiprocessor, and the least time of "
        "a call. Exit code 1 if a kernel spills, takes too much shared memory, or does not compile.",
        epilog=examples("prior-fast kernels report --arch sm_90 --op segment_mean sigmoid_attention --out report"),
    )
    task.add_argument(
        "--arch", default="sm_80,sm_90", metavar="NAMES", help="architectures to compile for (default: sm_80,sm_90)"
    )
    task.add_argument("--op", nargs="+", default=[], metavar="NAME", help="ops to compile (default: all with kernels)")
    task.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for report.json, which has every version of every kernel"
    )
    task.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.console import busy

    with busy("loading PyTorch"):
        from prior_fast.kernel_report.report import report

    report([name for name in args.arch.split(",") if name], args.op, args.out)
    return 0

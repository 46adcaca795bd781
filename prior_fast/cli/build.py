"""`prior-fast build`: compile csrc/ for this machine."""

import argparse


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `build`."""
    parser = subparsers.add_parser(
        "build",
        help="compile the C++ and CUDA sources for this machine",
        description="Compile the assignment solver for CPUs (C++) and GPUs (CUDA) with this machine's compilers. "
        "SciPy serves what can't be built. Libraries that are up to date are not built again.",
        epilog="example: prior-fast build --arch sm_80,sm_90",
    )
    parser.add_argument(
        "--arch", default="sm_80,sm_90", metavar="NAMES", help="GPUs to build for (default: sm_80,sm_90, and PTX)"
    )
    parser.add_argument("--force", action="store_true", help="build libraries again that are up to date")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.console import stdout
    from prior_fast.csrc.build import build

    for outcome in build([name for name in args.arch.split(",") if name], args.force):
        stdout.print(f"{outcome.kind}: {outcome.line}")
    return 0

"""`prior-fast build`: compile csrc/ for this machine."""

import argparse

from prior_fast.cli.parser import examples


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `build`."""
    parser = subparsers.add_parser(
        "build",
        help="compile the C++ and CUDA sources for this machine",
        description="Compile the ops of csrc/ for CPUs (C++) and GPUs (CUDA) with this machine's compilers. "
        "SciPy and PyTorch serve what can't be built. Libraries that are up to date are not built again.",
        epilog=examples("prior-fast build", "prior-fast build --arch sm_86 --force"),
    )
    parser.add_argument(
        "--arch", default="sm_80,sm_90", metavar="NAMES", help="GPUs to build for (default: sm_80,sm_90, and PTX)"
    )
    parser.add_argument("--force", action="store_true", help="build libraries again that are up to date")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.console import busy, stdout
    from prior_fast.csrc.build import build

    with busy("compiling"):
        outcomes = build([name for name in args.arch.split(",") if name], args.force)
    for outcome in outcomes:
        stdout.print(f"{outcome.kind}: {outcome.line}")
    return 0

"""`prior-fast doctor`: what this machine has, and which backend each op will use on it."""

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prior_fast.cli.advice import advice
from prior_fast.cli.parser import examples

if TYPE_CHECKING:
    import torch

Row = tuple[str, str]


def add_parser(subparsers: "argparse._SubParsersAction") -> None:
    """Add the verb `doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="whether this machine can train, what it has, and what is missing",
        description="Say whether this machine can train and what is missing. Show what it has (GPU, CUDA, Triton, "
        "DALI, compilers, compiled libraries), which backend each op will use on it, and why.",
        epilog=examples("prior-fast doctor", "prior-fast doctor --out doctor"),
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for report.json (default: none is written)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from prior_fast.console import busy, print_table, stdout
    from prior_fast.files import write_json

    with busy("looking at this machine"):
        from prior_fast import extension
        from prior_fast.hardware.machine import parts
        from prior_fast.hardware.versions import versions

        software, hardware, tools, ops = versions(), parts(), compilers(), backends()
        libraries = {kind: extension.unavailable(kind) for kind in extension.KINDS}
    for line in advice(dict(software), dict(hardware), libraries, ops):
        stdout.print(line)
    stdout.print()
    print_table("software", ("package", "version"), software)
    print_table("machine", ("part", "here"), [*hardware, *tools])
    print_table(f"ops on {op_device()}", ("op", "backend", "why"), [(op["op"], op["backend"], op["why"]) for op in ops])
    if args.out:
        report = {"software": dict(software), "machine": dict(hardware), "tools": dict(tools), "ops": ops}
        write_json(args.out / "report.json", report)
        stdout.print(f"report.json is in {args.out}")
    return 0


def compilers() -> list[Row]:
    """nvcc, the C++ compiler and the libraries built with them."""
    from prior_fast import extension

    compiler = os.environ.get("CXX") or next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), "c++")
    return [
        ("nvcc", tool_version("nvcc", r"release (\S+?),")),
        ("C++ compiler", tool_version(compiler, r"(.+)")),
        *((f"{kind} library", extension.unavailable(kind) or _built(kind)) for kind in extension.KINDS),
    ]


def _built(kind: str) -> str:
    from prior_fast import extension

    facts = extension.record()[kind]
    return f"built: {', '.join(facts.get('architectures', ['C++']))} with {facts['compiler']}"


def tool_version(name: str, pattern: str) -> str:
    """The version that `name --version` prints (the first group of `pattern`) and the path, or why there is none."""
    words = name.split()
    path = shutil.which(words[0])
    if path is None:
        return "not found"
    try:
        done = subprocess.run([path, *words[1:], "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return f"{path} does not run"
    match = re.search(pattern, done.stdout)
    return f"{match.group(1).strip()} ({path})" if match else path


def op_device() -> "torch.device":
    """The device that the ops run on here."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def backends() -> list[dict[str, Any]]:
    """For each op: the backend that a call on this machine uses, why, and why others can't serve."""
    from prior_fast import ops
    from prior_fast.ops.common.backend import explain

    rows = []
    for name in ops.__all__:
        op = getattr(ops, name)
        if not isinstance(op, type):
            rows.append({"op": name, **explain(op, example_call(name, op_device()))})
    return rows


def example_call(op: str, device: "torch.device") -> Callable[..., Any]:
    """A call of an op that takes only `backend`: the first case of its benchmark, on a GPU of PRIOR's own shape."""
    import importlib
    from functools import partial

    import torch

    on_gpu = device.type == "cuda"
    bench = importlib.import_module(f"prior_fast.bench.{op}")
    first = next(iter(bench.public(device, torch.bfloat16 if on_gpu else torch.float32, small=not on_gpu)))
    return partial(first.call, *first.inputs)

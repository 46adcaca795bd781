"""Compiles the sources of this folder for this machine.

They use torch's stable ABI, so that one library serves torch 2.11 to 2.15.
"""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prior_fast import extension
from prior_fast.errors import RunError, UsageError
from prior_fast.files import atomic_path, write_json

DEFAULT_ARCHITECTURES = ("sm_80", "sm_90")
# The sources may use symbols of torch 2.11 and older, but no later ones.
TARGET = "-DTORCH_TARGET_VERSION=0x020b000000000000"
FLAGS = ("-std=c++17", "-O3", TARGET)


@dataclass(frozen=True)
class Outcome:
    """The result for one library: whether it can be used now, and one line for the user."""

    kind: str
    built: bool
    line: str


def build(architectures: Sequence[str] = DEFAULT_ARCHITECTURES, force: bool = False) -> list[Outcome]:
    """Build the libraries that this machine has compilers for. Libraries that are up to date are kept.

    Args:
        architectures: GPU architectures such as "sm_80"; PTX of the newest is added, for later GPUs.
        force: also rebuild libraries that are up to date.

    Raises:
        UsageError: an architecture is not of the form sm_80.
        RunError: a compiler rejected a source, or a file can't be written. Existing libraries are kept.
    """
    check_architectures(architectures)
    return [_build_cpu(force), _build_cuda(architectures, force)]


def check_architectures(architectures: Sequence[str]) -> None:
    """Raise UsageError unless each is of the form sm_80."""
    for name in architectures:
        if not re.fullmatch(r"sm_\d{2,3}[af]?", name):
            raise UsageError(f"--arch {name}: must be names like sm_80,sm_90")
    if not architectures:
        raise UsageError("--arch: needs at least one name like sm_80")


def _build_cpu(force: bool) -> Outcome:
    compiler = find_cxx()
    if compiler is None:
        return Outcome("cpu", False, "no C++ compiler (g++ or clang++ on the PATH, or CXX): SciPy is used on CPUs")
    return _build("cpu", cpu_command(compiler), {"compiler": _version(compiler)}, force)


def _build_cuda(architectures: Sequence[str], force: bool) -> Outcome:
    instead = "on GPUs SciPy is used instead, with copies to the host"
    import torch

    if torch.version.cuda is None:
        return Outcome("cuda", False, f"torch is a CPU build: {instead}")
    nvcc = find_nvcc()
    if nvcc is None:
        return Outcome("cuda", False, f"no nvcc (on the PATH, in CUDA_HOME or among the pip packages): {instead}")
    if find_cxx() is None:
        return Outcome("cuda", False, f"no C++ compiler, which nvcc needs: {instead}")
    facts = {"compiler": _version([str(nvcc)]), "architectures": list(architectures)}
    return _build("cuda", cuda_command(nvcc, architectures), facts, force)


def _build(kind: str, command: list[str], facts: dict, force: bool) -> Outcome:
    path, sources = extension.library_path(kind), extension.source_hash(kind)
    wanted = {"sources": sources, **facts}
    what = f"{', '.join(facts.get('architectures', ['C++']))} with {facts['compiler']}"
    before = extension.record().get(kind, {})
    if not force and path.is_file() and {name: before.get(name) for name in wanted} == wanted:
        return Outcome(kind, True, f"up to date: {what}")
    try:
        with atomic_path(path) as partial:
            printed = _compile([*command, "-o", str(partial)])
        write_json(extension.RECORD, {**extension.record(), kind: {**wanted, "kernels": kernel_resources(printed)}})
    except OSError as error:
        raise RunError(f"can't write the {kind} library: {error.strerror}: {error.filename}") from None
    extension.unavailable.cache_clear()
    return Outcome(kind, True, f"built: {what}")


def _compile(command: Sequence[str]) -> str:
    """Run a compiler and return what it printed.

    Raises:
        RunError: the compiler failed; the message contains its errors and the command.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    printed = done.stdout + done.stderr
    if done.returncode:
        telling = re.compile("error|fatal|cannot find|undefined")
        errors = [line for line in printed.splitlines() if telling.search(line)] or printed.splitlines()
        raise RunError("\n".join(["csrc does not compile:", *errors[:5], shlex.join(command)]))
    return printed


def kernel_resources(printed: str) -> list[dict[str, int | str]]:
    """From ptxas, for each kernel and architecture: registers per thread, bytes of stack, spills, shared memory."""
    kernels = []
    for part in re.split(r"Compiling entry function '", printed)[1:]:
        name, architecture = re.match(r"(\S+)' for '(\S+)'", part).groups()  # type: ignore[union-attr]
        found = {
            "registers": re.search(r"Used (\d+) registers", part),
            "stack": re.search(r"(\d+) bytes stack frame", part),
            "spill_stores": re.search(r"(\d+) bytes spill stores", part),
            "spill_loads": re.search(r"(\d+) bytes spill loads", part),
            "shared": re.search(r"(\d+) bytes smem", part),
        }
        counts = {what: int(match.group(1)) if match else 0 for what, match in found.items()}
        kernels.append({"name": name, "architecture": architecture, **counts})
    return kernels


def cpu_command(compiler: Sequence[str]) -> list[str]:
    """The command that compiles and links the library for CPUs, without the output file."""
    sources = map(str, extension.source_files("cpu"))
    # Without regard to floating-point exceptions, which nobody catches: loops with a condition are then vectorized.
    return [
        *compiler,
        *FLAGS,
        "-fno-trapping-math",
        "-fPIC",
        "-shared",
        *_includes(),
        *sources,
        *_libraries("torch", "torch_cpu"),
    ]


def cuda_command(nvcc: Path, architectures: Sequence[str]) -> list[str]:
    """The command that compiles and links the library for GPUs, without the output file. ptxas prints resources."""
    targets = [f"-gencode=arch=compute_{name[3:]},code={name}" for name in architectures]
    newest = max(architectures, key=lambda name: int(re.sub(r"\D", "", name)))
    targets.append(f"-gencode=arch=compute_{newest[3:]},code=compute_{newest[3:]}")
    sources = map(str, extension.source_files("cuda"))
    command = [str(nvcc), *FLAGS, "-DUSE_CUDA", "-Xcompiler=-fPIC", "-Xptxas=-v", *targets, *_includes()]
    # nvcc does not search the folder where pip installs the runtime.
    runtime = [f"-L{nvcc.parents[1] / 'lib'}"] if nvcc.parents[1] in _pip_toolkits() else []
    return [*command, "-shared", *sources, *runtime, *_libraries("torch", "torch_cpu", "torch_cuda")]


def find_cxx() -> list[str] | None:
    """The C++ compiler and its arguments: CXX, or the first compiler on the PATH."""
    if os.environ.get("CXX"):
        words = shlex.split(os.environ["CXX"])
        return words if shutil.which(words[0]) else None
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    return [found] if found else None


def find_nvcc() -> Path | None:
    """The path of nvcc: from NVCC, the PATH, CUDA_HOME, or the pip packages of the CUDA toolkit."""
    named = [os.environ.get("NVCC"), shutil.which("nvcc")]
    if os.environ.get("CUDA_HOME"):
        named.append(str(Path(os.environ["CUDA_HOME"], "bin", "nvcc")))
    named += [str(path / "bin" / "nvcc") for path in _pip_toolkits()]
    return next((Path(path) for path in named if path and os.access(path, os.X_OK)), None)


def _pip_toolkits() -> list[Path]:
    """Folders of the CUDA toolkit that pip installed: site-packages/nvidia/cu13 or, before CUDA 13, cuda_nvcc."""
    spec = importlib.util.find_spec("nvidia")
    roots = map(Path, (spec.submodule_search_locations or []) if spec else [])
    patterns = ("cu[0-9]*", "cuda_nvcc")
    return [folder for root in roots for pattern in patterns for folder in sorted(root.glob(pattern), reverse=True)]


def _includes() -> list[str]:
    import torch

    return ["-isystem", str(Path(torch.__file__).parent / "include")]


def _libraries(*names: str) -> list[str]:
    import torch

    return [f"-L{Path(torch.__file__).parent / 'lib'}", *(f"-l{name}" for name in names)]


def _version(compiler: Sequence[str]) -> str:
    printed = subprocess.run([*compiler, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\S+),", printed)
    if release:
        return f"nvcc {release.group(1)}"
    return (printed.splitlines() or [compiler[0]])[0]


if __name__ == "__main__":
    for outcome in build(sys.argv[1:] or DEFAULT_ARCHITECTURES):
        print(f"{outcome.kind}: {outcome.line}")

"""Builds the stand-in for CUDA, and the environment of a process that uses it as a GPU.

    python tests/stand_in/library.py FOLDER

builds it in FOLDER and prints the environment as lines for a shell.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch

from prior_fast.csrc.build import find_nvcc

HERE = Path(__file__).resolve().parent
# Symbols that torch's libraries need from CUDA and its libraries, and symbols of the driver.
_WANTED = re.compile(r" U ((?:cuda[A-Z]|cublas|cudnn|cufft|curand|cusolver|cusparse)\w+)(?:@|$)", re.MULTILINE)
_DRIVER = re.compile(r"CUDAAPI\s+(cu\w+)\s*\(")
_RENAMED = re.compile(r"^#define (cu[A-Z]\w*)\s+(?:__CUDA_API_PT(?:DS|SZ)\()?(cu\w+)", re.MULTILINE)
_DEFINED = re.compile(r"^(?:const char \*|\w+ )(cu\w+)\(", re.MULTILINE)


LIBRARY = "libcuda.so.1"  # as the driver is named


class Unbuildable(Exception):
    """The stand-in can't be built on this machine; the message has the reason."""


def build(folder: Path) -> Path:
    """Compile the stand-in; returns the library.

    Raises:
        Unbuildable: a tool is missing, or headers of torch's CUDA.
    """
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("nm") is None:
        raise Unbuildable("wants cc and nm")
    includes = _headers()
    header = includes[0] / "cuda.h"
    rest = folder / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(_rest(header.read_text()))))
    library = folder / LIBRARY
    options = [f"-DSTAND_IN_CUDNN={_cudnn()}", *(f"-I{place}" for place in includes)]
    command = [compiler, "-w", "-shared", "-fPIC", "-O1", *options, str(HERE / "cuda.c"), str(rest)]
    done = subprocess.run(
        [*command, "-ldl", f"-Wl,-soname,{library.name}", "-o", str(library)], capture_output=True, text=True
    )
    if done.returncode:
        raise Unbuildable(f"cc: {done.stderr[:500]}")
    (folder / "libcuda.so").symlink_to(library.name)  # the name that linkers use
    return library


def _headers() -> list[Path]:
    """Folders with CUDA's headers of the version that torch was built for: Triton's, pip's or the toolkit's.

    Triton 3.6 includes the headers of CUDA 12.8. pip's headers also need crt/host_defines.h, which names attributes and
    is the same in all versions, so Triton's copy is used.
    """
    if torch.version.cuda is None:
        raise Unbuildable("torch is a CPU build")
    major = torch.version.cuda.split(".")[0]
    packages = Path(torch.__file__).parents[1]
    triton = packages / "triton/backends/nvidia/include"
    nvcc = find_nvcc()
    toolkit = [nvcc.resolve().parents[1] / "include"] if nvcc else []
    for place in (triton, packages / f"nvidia/cu{major}/include", *toolkit):
        header = place / "cuda.h"
        if header.is_file() and re.search(rf"#define CUDA_VERSION {major}\d{{3}}", header.read_text()):
            return [place, triton]
    raise Unbuildable(f"wants the headers of CUDA {major}")


def _cudnn() -> int:
    """The version of the cuDNN that torch came with, as cuDNN counts: 9.19.0 is 91900."""
    for package in ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12"):
        try:
            major, minor, patch = map(int, metadata.version(package).split(".")[:3])
        except (metadata.PackageNotFoundError, ValueError):
            continue
        return 10_000 * major + 100 * minor + patch
    return 91_900


def _rest(header: str) -> set[str]:
    """Names of the needed symbols that cuda.c does not define."""
    driver, renamed = set(_DRIVER.findall(header)), dict(_RENAMED.findall(header))
    driver |= {renamed[name] for name in driver & renamed.keys()}
    return (set(_asked_of_cuda()) | driver) - set(_DEFINED.findall((HERE / "cuda.c").read_text()))


def _asked_of_cuda() -> Iterator[str]:
    for library in (Path(torch.__file__).parent / "lib").glob("*.so"):
        symbols = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True)
        yield from _WANTED.findall(symbols.stdout)


def environment(library: Path) -> dict[str, str]:
    """Variables of a Python process that uses the stand-in as a GPU; Triton caches compiled kernels beside it."""
    folder = str(library.parent)
    found = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = [str(HERE), *filter(None, [found.get("PYTHONPATH")])]
    return {
        **found,
        "LD_PRELOAD": str(library),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [folder, found.get("LD_LIBRARY_PATH")])),
        "PYTHONPATH": os.pathsep.join(paths),
        "TRITON_LIBCUDA_PATH": folder,
        "TRITON_CACHE_DIR": str(library.parent / "triton"),
        "STAND_IN_LAUNCHED": str(library.parent / "launched.txt"),
    }


def main(folder: str) -> None:
    """Build into `folder` and print the variables that a shell must set."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    set_here = environment(build(Path(folder).resolve()))
    for name, value in set_here.items():
        if os.environ.get(name) != value:
            print(f"export {name}={shlex.quote(value)}")
    if "TRITON_INTERPRET" in os.environ:
        print("unset TRITON_INTERPRET")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Unbuildable as error:
        sys.exit(f"no stand-in for CUDA: {error}")

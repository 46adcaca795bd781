"""Building the stand-in for CUDA, and the environment of a process that takes it for a GPU."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
# What a library of torch asks of CUDA and its libraries, and what the driver has.
_WANTED = re.compile(r" U ((?:cuda[A-Z]|cublas|cudnn|cufft|curand|cusolver|cusparse)\w+)(?:@|$)", re.MULTILINE)
_DRIVER = re.compile(r"CUDAAPI\s+(cu\w+)\s*\(")
_RENAMED = re.compile(r"^#define (cu[A-Z]\w*)\s+(?:__CUDA_API_PT(?:DS|SZ)\()?(cu\w+)", re.MULTILINE)
_DEFINED = re.compile(r"^(?:const char \*|\w+ )(cu\w+)\(", re.MULTILINE)


class Unbuildable(Exception):
    """Why there can be no stand-in here."""


def build(folder: Path) -> Path:
    """Compile the stand-in; returns the library, which is named as the driver is.

    Raises:
        Unbuildable: a tool is missing, or headers of torch's CUDA.
    """
    compiler = shutil.which("cc")
    if compiler is None or shutil.which("nm") is None:
        raise Unbuildable("wants cc and nm")
    include = _headers()
    header = include / "cuda.h"
    rest = folder / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(_rest(header.read_text()))))
    library = folder / "libcuda.so.1"
    command = [compiler, "-w", "-shared", "-fPIC", "-O1", f"-I{include}", str(HERE / "cuda.c"), str(rest)]
    done = subprocess.run(
        [*command, "-ldl", f"-Wl,-soname,{library.name}", "-o", str(library)], capture_output=True, text=True
    )
    if done.returncode:
        raise Unbuildable(f"cc: {done.stderr[:500]}")
    (folder / "libcuda.so").symlink_to(library.name)  # by which linkers know it
    return library


def _headers() -> Path:
    """A folder with CUDA's headers of the version that torch was built for; Triton brings some along."""
    if torch.version.cuda is None:
        raise Unbuildable("torch is a CPU build")
    major = torch.version.cuda.split(".")[0]
    packages = Path(torch.__file__).parents[1]
    places = [packages / "triton/backends/nvidia/include", packages / f"nvidia/cu{major}/include"]
    for place in places:
        header = place / "cuda.h"
        if header.is_file() and re.search(rf"#define CUDA_VERSION {major}\d{{3}}", header.read_text()):
            return place
    raise Unbuildable(f"wants the headers of CUDA {major}")


def _rest(header: str) -> set[str]:
    """What cuda.c does not define."""
    driver, renamed = set(_DRIVER.findall(header)), dict(_RENAMED.findall(header))
    driver |= {renamed[name] for name in driver & renamed.keys()}
    return (set(_asked_of_cuda()) | driver) - set(_DEFINED.findall((HERE / "cuda.c").read_text()))


def _asked_of_cuda() -> Iterator[str]:
    for library in (Path(torch.__file__).parent / "lib").glob("*.so"):
        symbols = subprocess.run(["nm", "-D", "--undefined-only", str(library)], capture_output=True, text=True)
        yield from _WANTED.findall(symbols.stdout)


def environment(library: Path) -> dict[str, str]:
    """Of a Python process that takes the stand-in for a GPU; Triton's kernels are compiled, and cached beside it."""
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

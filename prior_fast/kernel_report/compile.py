"""Compiles one version of a kernel for one architecture, without a GPU, and reads its resource use."""

import importlib
import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import Any

from prior_fast.kernel_report.resources import MachineCode, count_instructions, count_tensor_core, parse_usage
from prior_fast.kernel_report.specialize import ALIGNMENT, Version
from prior_fast.kernels.common.launch import OPTIONS

# "%acc = tt.dot %a, %b, %c ... : tensor<64x16xbf16> * tensor<16x64xbf16> -> tensor<64x64xf32>"
_DOT = re.compile(r"= tt\.dot\b.*: tensor<[0-9x]+x(\w+)[,>]")


@dataclass(frozen=True)
class Compiled:
    """A compiled kernel, or the compiler's error.

    Attributes:
        shared: bytes of shared memory per block.
        dots: number of the kernel's `tl.dot` operations by the type of the first operand: {"bf16": 2}.
        error: the last line of the compiler's error; None if it succeeded.
    """

    code: MachineCode | None = None
    shared: int = 0
    dots: dict[str, int] = field(default_factory=dict)
    error: str | None = None


def compile_version(job: tuple[Version, str]) -> Compiled:
    """Compile (version, architecture); an exception of the compiler becomes the result's `error`."""
    version, arch = job
    try:
        kernel = getattr(importlib.import_module(version.module), version.kernel)
        compiled = compile_triton(kernel, version, arch)
        return Compiled(read_cubin(compiled.asm["cubin"]), compiled.metadata.shared, _dots(compiled.asm["ttir"]))
    except Exception as error:  # compilers fail in many ways, and one kernel's failure must not hide the others
        lines = str(error).strip().splitlines()
        return Compiled(error=f"{type(error).__name__}: {lines[-1] if lines else 'no message'}")


def compile_triton(kernel: Any, version: Version, arch: str) -> Any:
    """Triton's compiled kernel, from Triton's cache if it is there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = [name for name, _ in version.types]
    source = ASTSource(
        fn=kernel,
        signature=dict(version.types),
        constexprs={(names.index(name),): value for name, value in version.constants},
        attrs={(names.index(name),): [["tt.divisibility", ALIGNMENT]] for name in version.aligned},
    )
    options = {"num_warps": version.warps, "num_stages": version.stages, **OPTIONS}
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    return triton.compile(source, target=target, options=options)


def read_cubin(cubin: bytes) -> MachineCode:
    """The resource use of a cubin of one kernel. It is disassembled only if it has a stack: registers spill there."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        registers, stack = parse_usage(cuobjdump("--dump-resource-usage", file.name))
        spills = count_instructions(cuobjdump("--dump-sass", file.name))[0] if stack else 0
    return MachineCode(registers, stack, spills, count_tensor_core(cubin))


def cuobjdump(option: str, path: str) -> str:
    """The output for a file of cuobjdump, the disassembler in Triton's wheel."""
    from triton import knobs

    words = [knobs.nvidia.cuobjdump.path, option, path]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _dots(ttir: str) -> dict[str, int]:
    kinds = _DOT.findall(ttir)
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def settings(version: Version) -> str:
    """A version's constants, warps and stages in a few words."""
    words = [f"{name}={value}" for name, value in version.constants]
    return ", ".join([*words, f"warps={version.warps}", f"stages={version.stages}"])

"""Prints our count of tensor-core instructions and the disassembler's, for the kernels made for the tests."""

import os
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)

import torch

import prior_fast.kernels
from prior_fast.kernel_report.compile import compile_triton, cuobjdump
from prior_fast.kernel_report.resources import count_instructions, count_tensor_core
from prior_fast.kernel_report.specialize import version_of
from prior_fast.kernels.common.launch import recording


def main() -> None:
    prior_fast.kernels.__path__.append(str(Path(__file__).resolve().parent / "kernels"))
    from prior_fast.kernels.fitting import fitting_fwd
    from prior_fast.kernels.greedy import greedy_fwd

    with recording() as launches:
        for dtype in (torch.bfloat16, torch.float32):
            fitting_fwd(torch.empty(64, 16, dtype=dtype, device="meta"))
        greedy_fwd(torch.empty(1024, 1024, dtype=torch.float16, device="meta"))
    for launch in launches:
        for arch in ("sm_80", "sm_90"):
            cubin = compile_triton(launch.kernel, version_of(launch), arch).asm["cubin"]
            with tempfile.NamedTemporaryFile() as file:
                file.write(cubin)
                file.flush()
                counted = count_instructions(cuobjdump("--dump-sass", file.name))[1]
            print(count_tensor_core(cubin), counted, sep=" / ")


if __name__ == "__main__":
    main()

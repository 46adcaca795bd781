"""Prints digests of the PTX of Triton's own launcher and of ours, for launches with many kinds of arguments."""

import hashlib
import os

os.environ.pop("TRITON_INTERPRET", None)

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from prior_fast.kernel_report.compile import compile_triton
from prior_fast.kernel_report.specialize import version_of
from prior_fast.kernels.common.launch import launch, recording


class NoGpu:
    """The parts of a driver that the launcher uses before compiling."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 80, 32)


@triton.jit(do_not_specialize=["seed"])
def kernel(x_ptr, y_ptr, other_ptr, N, scale, seed, flag, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr = 16):
    i = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + i, mask=i < N, other=0.0).to(tl.float32) * scale + seed
    if WEIGHTED:
        x *= tl.load(other_ptr + i)
    if flag:
        x += 1.0
    tl.store(y_ptr + i, x)


def main() -> None:
    driver.set_active(NoGpu())
    x, weights = (torch.empty(64, dtype=dtype, device="meta") for dtype in (torch.bfloat16, torch.float32))
    ids = torch.empty(64, dtype=torch.int64, device="meta")
    for values in (
        {"x_ptr": x, "y_ptr": x, "other_ptr": weights, "N": 16, "scale": 1.0, "seed": 16, "flag": True},
        {"x_ptr": x[1:], "y_ptr": weights, "other_ptr": weights, "N": 1, "scale": 0.5, "seed": 1, "flag": False},
        {"x_ptr": ids, "y_ptr": x[8:], "other_ptr": weights, "N": 2**40, "scale": 1, "seed": 2**63, "flag": 3},
        {"x_ptr": x, "y_ptr": weights[3:], "other_ptr": None, "N": 17, "scale": 2.0, "seed": -5, "flag": 0},
    ):
        constants = {"WEIGHTED": values["other_ptr"] is not None}
        theirs = kernel.warmup(**values, **constants, grid=(1,), num_warps=2, num_stages=3)
        with recording() as launches:
            launch(kernel, (1,), values, constants, num_warps=2, num_stages=3)
        ours = compile_triton(kernel, version_of(launches[0]), "sm_80")
        print(*(hashlib.sha256(compiled.asm["ptx"].encode()).hexdigest() for compiled in (theirs, ours)))


if __name__ == "__main__":
    main()

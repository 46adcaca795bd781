"""Counter-based uniform noise: N numbers, BLOCK of them in a program."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels._philox import philox_word
from prior_fast.kernels.common.launch import launch

# Eight numbers a thread with four warps.
BLOCK = 1024


# Both integers change from call to call. Specialized, a 1 and multiples of 16 would each compile a version.
@triton.jit(do_not_specialize=["first", "N"])
def _philox_uniform_kernel(seed_ptr, out_ptr, first, N, BLOCK: tl.constexpr):
    """out[i] in (0, 1), of counter first + i."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    # One counter a number and one word of it: number i is the same whatever BLOCK is.
    word = philox_word(tl.load(seed_ptr), first.to(tl.int64) + i)
    tl.store(out_ptr + i, (word >> 9).to(tl.float32) * (2.0**-23) + (2.0**-24), mask=i < N)


def philox_uniform(seed: Tensor, count: int, first: int) -> Tensor:
    """seed [] int64 -> float32 [count]."""
    out = torch.empty(count, dtype=torch.float32, device=seed.device)
    arguments = {"seed_ptr": seed, "out_ptr": out, "first": first, "N": count}
    launch(_philox_uniform_kernel, (triton.cdiv(count, BLOCK),), arguments, {"BLOCK": BLOCK})
    return out

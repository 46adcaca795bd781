"""The product of two tiles, which all kernels with matrix products share."""

import triton
import triton.language as tl

# Triton's interpreter multiplies the bits of bfloat16 as integers. There the operands are widened, which is exact.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def dot(a, b, total):
    """total + a b, accumulated in float32; float32 operands are multiplied exactly, the narrow ones on tensor cores."""
    # A constexpr decides, so compiled kernels do not contain the branch.
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    # "ieee" keeps Triton from rounding float32 operands to TF32. Such products run without tensor cores and hold their
    # operands in registers, which is why the launchers choose smaller tiles for float32.
    return tl.dot(a, b, total, input_precision="ieee")

"""The product of two tiles, which all kernels with matrix products share."""

import triton
import triton.language as tl

# Triton's interpreter multiplies the bits of bfloat16 as integers. There the operands are widened, which is exact.
INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


# Triton 3.6 does not make a constexpr of a default value.
IEEE = tl.constexpr("ieee")


@triton.jit
def dot(a, b, total, precision: tl.constexpr = IEEE):
    """total + a b, accumulated in float32; the narrow dtypes are multiplied on tensor cores.

    precision: of float32 operands. "ieee" multiplies them exactly, without tensor cores. "tf32x3" multiplies them on
        tensor cores, as three products of TF32 (`_tf32x3`).
    """
    # Constexprs decide, so compiled kernels do not contain the branches.
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    # "ieee" keeps Triton from rounding float32 operands to TF32. Such products run without tensor cores and hold their
    # operands in registers, which is why the launchers choose smaller tiles for float32.
    if INTERPRETED and precision == "tf32x3":
        result = _tf32x3(a, b, total)
    else:
        result = tl.dot(a, b, total, input_precision=precision)
    return result


@triton.jit
def _tf32x3(a, b, total):
    """What `tl.dot` compiles "tf32x3" to, for the interpreter, whose products are float32 for every precision.

    Each operand is high + low, both TF32. The product of the two low parts, some 2**-22 of the whole, is left out. The
    small products are added up before the large one. Tensor cores also round their sums in a way of their own, which
    this does not show.
    """
    high_a, high_b = round_to_tf32(a), round_to_tf32(b)
    low_a, low_b = _read_as_tf32(a - high_a), _read_as_tf32(b - high_b)
    small = tl.dot(high_a, low_b, tl.dot(low_a, high_b, input_precision="ieee"), input_precision="ieee")
    # An infinite operand has the low part inf - inf. The compiled kernel removes it in the same place.
    small = tl.where(small == small, small, 0.0)
    return total + tl.dot(high_a, high_b, small, input_precision="ieee")


@triton.jit
def round_to_tf32(x):
    """float32 rounded to TF32's 10 bits of mantissa, half away from zero, like the instruction cvt.rna.tf32.f32."""
    bits = x.to(tl.int32, bitcast=True)
    # Half of the last bit kept is added to the magnitude; a carry into the exponent is the next power of two.
    # A NaN stays as it is: the addition would run over into the sign.
    return tl.where(x == x, ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True), x)


@triton.jit
def _read_as_tf32(x):
    """float32 as tensor cores read it for a TF32 operand: without the last 13 bits of the mantissa."""
    return (x.to(tl.int32, bitcast=True) & -0x2000).to(tl.float32, bitcast=True)

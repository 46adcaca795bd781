"""Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).

A number depends only on its seed and counter. The noise is therefore the same in a forward and a backward pass, with
any block size and with any number of ranks. The contract of all backends: the key is the 64-bit seed; the counter is
the flat index row * columns + column, in the two low words; of the four output words the first, r, is used. Then
u = (r >> 9) * 2**-23 + 2**-24, which lies strictly between 0 and 1 and is exact in float32. Gumbel noise is
-log(-log(u)).
"""

import math

import torch
from torch import Tensor

from prior_fast import extension
from prior_fast.ops.common.triton import triton_unavailable

_MASK = 0xFFFFFFFF
_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)


def _multiply(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of the product of two 32-bit words, held in int64.

    The word is split into 16-bit halves, since the whole product needs 64 bits and int64 has 63.
    """
    low = constant * (word & 0xFFFF)
    high = constant * (word >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def philox_uint32(
    seed: int | Tensor, counter: Tensor, counter_high: Tensor | int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four 32-bit output words of Philox4x32-10 for each counter.

    Args:
        seed: the 64-bit key as an int64 value: an int, or a tensor without dimensions.
        counter: int64 tensor of any shape, the low 64 bits of the counters.
        counter_high: the high 64 bits, int64.

    Returns:
        Four int64 tensors of the shape of `counter`, each value in [0, 2**32).
    """
    words = [counter & _MASK, (counter >> 32) & _MASK]
    words += [
        torch.zeros_like(counter) + (counter_high & _MASK),
        torch.zeros_like(counter) + (counter_high >> 32 & _MASK),
    ]
    key = [seed & _MASK, (seed >> 32) & _MASK]
    for _ in range(_ROUNDS):
        high_0, low_0 = _multiply(_MULTIPLIERS[0], words[0])
        high_1, low_1 = _multiply(_MULTIPLIERS[1], words[2])
        words = [high_1 ^ words[1] ^ key[0], low_1, high_0 ^ words[3] ^ key[1], low_0]
        key = [(key[0] + _KEY_INCREMENTS[0]) & _MASK, (key[1] + _KEY_INCREMENTS[1]) & _MASK]
    return words[0], words[1], words[2], words[3]


def uniform(
    seed: int | Tensor,
    shape: tuple[int, ...],
    first: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniform numbers in (0, 1), multiples of 2**-24; the element of flat index i has counter first + i.

    Args:
        seed: an int64 value: an int, or a tensor without dimensions on `device`.
        shape: shape of the result.
        first: counter of the first element.
        device: device of the result.
        dtype: float32 or float64, which hold every value exactly.
    """
    key = _key(seed, device)
    return _uniform(key, math.prod(shape), first, dtype).view(shape)


def _key(seed: int | Tensor, device: torch.device | str | None) -> Tensor:
    # torch.full fills on the device; torch.tensor would copy from the host and wait.
    return seed if isinstance(seed, Tensor) else torch.full((), seed, dtype=torch.int64, device=device)


# csrc/ implements it for CPUs; in plain PyTorch the rounds take about 270 calls.
torch.library.define("prior_fast::philox_uniform", "(Tensor seed, int count, int first) -> Tensor")


# A custom op: Inductor inlines each round twice into the next, and with ten rounds compilation does not end.
@torch.library.custom_op("prior_fast::uniform", mutates_args=())
def _uniform(seed: Tensor, count: int, first: int, dtype: torch.dtype) -> Tensor:
    # The numbers are exact in float32.
    if seed.device.type == "cpu" and extension.unavailable("cpu") is None:
        return torch.ops.prior_fast.philox_uniform(seed, count, first).to(dtype)
    if seed.device.type == "cuda" and triton_unavailable(seed.new_empty(0, dtype=torch.float32)) is None:
        from prior_fast.kernels.philox_uniform import philox_uniform

        return philox_uniform(seed, count, first).to(dtype)
    return uniform_reference(seed, count, first, dtype)


@_uniform.register_fake
def _(seed: Tensor, count: int, first: int, dtype: torch.dtype) -> Tensor:
    return seed.new_empty(count, dtype=dtype)


def uniform_reference(seed: Tensor, count: int, first: int, dtype: torch.dtype) -> Tensor:
    """The numbers of counters first, ..., first + count - 1 in plain PyTorch: [count]."""
    counter = torch.arange(count, device=seed.device, dtype=torch.int64) + first
    word = philox_uint32(seed, counter)[0]
    return (word >> 9).to(dtype) * 2.0**-23 + 2.0**-24


# A custom op, so that a graph has one node for it.
@torch.library.custom_op("prior_fast::gumbel", mutates_args=())
def _gumbel(seed: Tensor, rows: int, columns: int, first_row: int, dtype: torch.dtype) -> Tensor:
    u = uniform(seed, (rows, columns), first_row * columns, seed.device, dtype)
    return -torch.log(-torch.log(u))


@_gumbel.register_fake
def _(seed: Tensor, rows: int, columns: int, first_row: int, dtype: torch.dtype) -> Tensor:
    return seed.new_empty((rows, columns), dtype=dtype)


def gumbel(
    seed: int | Tensor,
    rows: int,
    columns: int,
    first_row: int = 0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard Gumbel noise [rows, columns] whose row n is row first_row + n of the whole batch's noise.

    Args:
        seed: an int64 value: an int, or a tensor without dimensions, whose device is then the result's. Under
            torch.compile pass a tensor: a new int may cause a recompilation.
        rows: rows of the result.
        columns: columns of the result, the same for the whole batch.
        first_row: index of the first row in the whole batch.
        device: device of the result if `seed` is an int.
        dtype: float32 or float64, for the result and the logarithms.
    """
    return _gumbel(_key(seed, device), rows, columns, first_row, dtype)


def seed_tensor(seed: int | Tensor, device: torch.device) -> Tensor:
    """The seed as a tensor [] on the device, without a wait of the host."""
    # torch.full fills on the device; torch.tensor would copy from the host and wait.
    return seed.reshape(()) if isinstance(seed, Tensor) else torch.full((), seed, dtype=torch.int64, device=device)

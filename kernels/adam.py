"""Clipping by the global norm, Adam, and narrow copies of the weights, over many tensors in a few launches.

The tensors of a model lie anywhere in memory, so the kernels read their addresses from tables. A program takes a chunk
of one tensor, and a table says which. Chunks of 16,384 numbers are 14,600 programs for 240 million parameters, and one
program adds their partial sums in four rounds.

A gradient is read twice, for the norm and for the update, and is not written: the factor that clips it is applied in
registers. Everything else is read and written once. The kernels have no product and no reuse, so the memory limits
them: each thread moves 16 bytes at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from prior_fast.kernels.common.launch import launch

CHUNK = 16384  # numbers of a tensor that one program takes
# Eight numbers a thread with four warps, 16 bytes in bfloat16. The update takes four: eight need 80 to 139 registers
# instead of 40, and Triton 3.8 moves bfloat16 numbers to the threads that hold the float32 ones through shared memory.
NORM_BLOCK, ADAM_BLOCK = 1024, 512
PARTS = 4096  # partial sums of a round of the program that adds them
COLUMNS = 5  # of the table of addresses: parameter, first moment, second moment, narrow copy, number of elements
RATES = 3  # of the table of rates: step size, 1 / sqrt(second bias correction), decay


@triton.jit
def _pointer(address, dtype: tl.constexpr, ALIGNED: tl.constexpr):
    pointer = address.to(tl.pointer_type(dtype))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def _read(pointer, i, size, MASKED: tl.constexpr):
    """The numbers i in float32; if MASKED, zeros from `size` on."""
    # A mask that may end anywhere makes Triton load one number at a time, so only the last piece has one.
    if MASKED:
        x = tl.load(pointer + i, mask=i < size, other=0.0)
    else:
        x = tl.load(pointer + i)
    return x.to(tl.float32)


@triton.jit
def _write(pointer, i, x, size, MASKED: tl.constexpr):
    if MASKED:
        tl.store(pointer + i, x, mask=i < size)
    else:
        tl.store(pointer + i, x)


@triton.jit(do_not_specialize=["first_part"])
def _square_sums_kernel(
    addresses_ptr,
    gradients_ptr,
    chunks_ptr,
    parts_ptr,
    first_part,
    COLUMNS: tl.constexpr,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """parts[first_part + program] = sum of the squares of a chunk of a gradient."""
    program = tl.program_id(0)
    tensor = tl.load(chunks_ptr + program * 2)
    begin = tl.load(chunks_ptr + program * 2 + 1).to(tl.int64) * CHUNK
    size = tl.load(addresses_ptr + tensor * COLUMNS + COLUMNS - 1)
    gradient = _pointer(tl.load(gradients_ptr + tensor), DTYPE, ALIGNED)
    end = tl.minimum(begin + CHUNK, size)
    whole = begin + (end - begin) // BLOCK * BLOCK
    total = tl.zeros([BLOCK], tl.float32)
    for first in range(begin, whole, BLOCK):
        x = _read(gradient, first + tl.arange(0, BLOCK), size, False)
        total += x * x
    if whole < end:
        x = _read(gradient, whole + tl.arange(0, BLOCK), size, True)
        total += x * x
    tl.store(parts_ptr + first_part + program, tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["P"])
def _clip_factor_kernel(parts_ptr, result_ptr, P, clip, PARTS: tl.constexpr):
    """result = (norm, factor) of the gradients whose P partial sums of squares these are; clip 0 does not clip."""
    # float64 costs nothing here: one program adds some ten thousand numbers.
    total = tl.zeros([PARTS], tl.float64)
    for first in range(0, P, PARTS):
        p = first + tl.arange(0, PARTS)
        total += tl.load(parts_ptr + p, mask=p < P, other=0.0).to(tl.float64)
    norm = tl.sqrt(tl.sum(total, axis=0)).to(tl.float32)
    factor = clip / (norm + 1e-6)
    # A norm that is NaN gives a factor that is NaN, as in torch.nn.utils.clip_grad_norm_.
    factor = tl.where((factor >= 1.0) | (clip <= 0.0), 1.0, factor)
    tl.store(result_ptr, norm)
    tl.store(result_ptr + 1, factor)


@triton.jit
def _piece(
    gradient,
    parameter,
    first_moment,
    second_moment,
    copy,
    i,
    size,
    factor,
    step_size,
    correction,
    decay,
    rest1,
    rest2,
    beta2,
    eps,
    DECOUPLED: tl.constexpr,
    COPIES: tl.constexpr,
    MASKED: tl.constexpr,
):
    """Update the numbers i of a tensor."""
    g = _read(gradient, i, size, MASKED) * factor
    p = _read(parameter, i, size, MASKED)
    if DECOUPLED:
        p -= decay * p
    else:
        g += decay * p
    m = _read(first_moment, i, size, MASKED)
    m += rest1 * (g - m)
    v = beta2 * _read(second_moment, i, size, MASKED) + rest2 * g * g
    p -= step_size * m / (tl.sqrt(v) * correction + eps)
    _write(first_moment, i, m, size, MASKED)
    _write(second_moment, i, v, size, MASKED)
    _write(parameter, i, p, size, MASKED)
    if COPIES:
        _write(copy, i, p.to(copy.dtype.element_ty), size, MASKED)


@triton.jit
def _adam_kernel(
    addresses_ptr,
    gradients_ptr,
    rates_ptr,
    chunks_ptr,
    clipping_ptr,
    rest1,
    rest2,
    beta2,
    eps,
    COLUMNS: tl.constexpr,
    RATES: tl.constexpr,
    DTYPE: tl.constexpr,
    DECOUPLED: tl.constexpr,
    COPIES: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Adam for a chunk of one tensor. rest1 and rest2: 1 - beta1 and 1 - beta2, which float32 would round."""
    program = tl.program_id(0)
    tensor = tl.load(chunks_ptr + program * 2)
    begin = tl.load(chunks_ptr + program * 2 + 1).to(tl.int64) * CHUNK
    row = addresses_ptr + tensor * COLUMNS
    parameter = _pointer(tl.load(row), tl.float32, ALIGNED)
    first_moment = _pointer(tl.load(row + 1), tl.float32, ALIGNED)
    second_moment = _pointer(tl.load(row + 2), tl.float32, ALIGNED)
    copy = _pointer(tl.load(row + 3), DTYPE, ALIGNED)
    size = tl.load(row + 4)
    gradient = _pointer(tl.load(gradients_ptr + tensor), DTYPE, ALIGNED)
    step_size = tl.load(rates_ptr + tensor * RATES)
    correction = tl.load(rates_ptr + tensor * RATES + 1)
    decay = tl.load(rates_ptr + tensor * RATES + 2)
    factor = tl.load(clipping_ptr + 1)
    end = tl.minimum(begin + CHUNK, size)
    whole = begin + (end - begin) // BLOCK * BLOCK
    for first in range(begin, whole, BLOCK):
        i = first + tl.arange(0, BLOCK)
        _piece(gradient, parameter, first_moment, second_moment, copy, i, size, factor, step_size, correction,
               decay, rest1, rest2, beta2, eps, DECOUPLED, COPIES, False)  # fmt: skip
    if whole < end:
        i = whole + tl.arange(0, BLOCK)
        _piece(gradient, parameter, first_moment, second_moment, copy, i, size, factor, step_size, correction,
               decay, rest1, rest2, beta2, eps, DECOUPLED, COPIES, True)  # fmt: skip


@dataclass(frozen=True)
class Updated:
    """Tensors that are updated together: those with gradients of one dtype.

    Attributes:
        addresses: [n, 5] int64; addresses of the parameters and moments, float32, and of the copies, `dtype`, each in
            one piece of memory in the same order; then the numbers of elements.
        gradients: [n] int64 addresses of the gradients, `dtype`, in the same order of memory.
        rates: [n, 3] float32: step size, 1 / sqrt(second bias correction), decay.
        chunks: [programs, 2] int32, of `chunks_of`.
        dtype: of gradients and copies.
        copies: whether there are copies; otherwise their addresses are not read.
        aligned: whether all addresses are multiples of 16.
    """

    addresses: Tensor
    gradients: Tensor
    rates: Tensor
    chunks: Tensor
    dtype: torch.dtype
    copies: bool
    aligned: bool


DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


def chunks_of(sizes: Sequence[int]) -> np.ndarray:
    """The tensor and the chunk in it of each program, [programs, 2] int32, for tensors of so many elements."""
    counts = [triton.cdiv(size, CHUNK) for size in sizes]
    tensors = np.repeat(np.arange(len(sizes)), counts)
    chunks = np.concatenate([np.arange(count) for count in counts] or [np.arange(0)])
    return np.stack([tensors, chunks], axis=1).astype(np.int32)


def clipping(groups: Sequence[Updated], clip: float) -> Tensor:
    """The norm of all gradients and the factor that clips it to `clip` (0: 1), [2] float32, in one order of sums."""
    programs = [len(group.chunks) for group in groups]
    device = groups[0].chunks.device
    parts = torch.empty(sum(programs), dtype=torch.float32, device=device)
    first = 0
    for group, count in zip(groups, programs, strict=True):
        arguments = {
            "addresses_ptr": group.addresses,
            "gradients_ptr": group.gradients,
            "chunks_ptr": group.chunks,
            "parts_ptr": parts,
            "first_part": first,
        }
        launch(_square_sums_kernel, (count,), arguments, {"COLUMNS": COLUMNS, "BLOCK": NORM_BLOCK} | _constants(group))
        first += count
    result = torch.empty(2, dtype=torch.float32, device=device)
    arguments = {"parts_ptr": parts, "result_ptr": result, "P": first, "clip": float(clip)}
    launch(_clip_factor_kernel, (1,), arguments, {"PARTS": PARTS}, num_warps=8)
    return result


def adam_update(group: Updated, clipping: Tensor, betas: tuple[float, float], eps: float, decoupled: bool) -> None:
    """One step of Adam for the tensors of a group, with `clipping` of the function of that name.

    decoupled: whether the decay is taken from the weights (AdamW) or added to the gradients (Adam).
    """
    arguments = {
        "addresses_ptr": group.addresses,
        "gradients_ptr": group.gradients,
        "rates_ptr": group.rates,
        "chunks_ptr": group.chunks,
        "clipping_ptr": clipping,
        "rest1": 1.0 - betas[0],
        "rest2": 1.0 - betas[1],
        "beta2": float(betas[1]),
        "eps": float(eps),
    }
    constants = {
        "COLUMNS": COLUMNS,
        "RATES": RATES,
        "DECOUPLED": decoupled,
        "COPIES": group.copies,
        "BLOCK": ADAM_BLOCK,
    }
    launch(_adam_kernel, (len(group.chunks),), arguments, constants | _constants(group))


def _constants(group: Updated) -> dict[str, object]:
    return {"DTYPE": DTYPES[group.dtype], "ALIGNED": group.aligned, "CHUNK": CHUNK}

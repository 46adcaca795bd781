"""Each op with Triton kernels on this machine's device: PRIOR's shapes on a GPU, small shapes in the interpreter.

The rule is that of `check_precision`: the error against float64 is at most twice that of plain PyTorch in the same
dtype, plus a rounding, for the result and every gradient. In float32 the kernels add one product after another, while
cuBLAS adds in parts, so the roundings of the longest sum here are allowed; a TF32 product has 4,000 roundings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from prior_fast import ops

pytestmark = pytest.mark.device
GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
REPORTS, WIDTH, PROTOTYPES, PATCHES = (128, 768, 512, 49) if GPU else (3, 40, 21, 9)
HEAD = 64 if GPU else 8


@dataclass(frozen=True)
class Call:
    """An op's call on tensors that are made for it; `run(backend, *floats)` gives one tensor."""

    floats: tuple[Tensor, ...]
    run: Callable[..., Tensor]


def lengths(reports: int) -> list[int]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(1, 17, (reports,), generator=generator).tolist()


def offsets(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0).int().to(DEVICE)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return torch.nn.functional.normalize(randn(*shape, seed=seed), dim=-1)


def calls() -> dict[str, Call]:
    counts = lengths(REPORTS)
    sentences, longest = sum(counts), max(counts)
    cu, patches = offsets(counts), offsets([PATCHES] * REPORTS)
    rows, others = randn(sentences, 1, WIDTH), [randn(REPORTS * PATCHES, 1, WIDTH, seed=n) for n in (1, 2)]
    bank = randn(PROTOTYPES, WIDTH, seed=3) / WIDTH**0.5

    def attention(activation: str, heads: int) -> Callable[..., Tensor]:
        def run(backend: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (x.unflatten(2, (heads, -1)).flatten(1, 2) for x in (q, k, v))
            sizes = cu, patches, longest, PATCHES
            return ops.sigmoid_attention(q, k, v, *sizes, activation=activation, backend=backend)

        return run

    def weights(backend: str, q: Tensor, k: Tensor) -> Tensor:
        return ops.attention_weights(q, k, cu, patches, longest, PATCHES, backend=backend)

    def lookup(backend: str, x: Tensor, e: Tensor) -> Tensor:
        read = ops.prototype_lookup(x, e, 0.5, seed=7, backend=backend)
        return read.output + read.l1.to(read.output.dtype)

    def packed(backend: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.unflatten(2, (-1, HEAD)).flatten(1, 2) for x in (q, k, v))
        return ops.packed_attention(q, k, v, cu, patches, longest, PATCHES, dropout=0.1, seed=7, backend=backend)

    def packed_self(backend: str, qkv: Tensor) -> Tensor:
        return ops.packed_self_attention(qkv, cu, longest, causal=True, backend=backend)

    vectors = randn(3, WIDTH, seed=10)

    def layer_norm(backend: str, x: Tensor, residual: Tensor) -> Tensor:
        own = vectors.to(torch.promote_types(x.dtype, torch.float32))
        return ops.dropout_add_layer_norm(x, residual, *own, dropout=0.1, seed=7, backend=backend)[0]

    pairs = (unit(sentences, WIDTH), unit(sentences, WIDTH, seed=4))
    return {
        "sigmoid_attention": Call((rows, *others), attention("sigmoid", 1)),
        "sigmoid_attention, softmax": Call((rows, *others), attention("softmax", 8)),
        "packed_attention": Call((rows, *others), packed),
        "packed_self_attention": Call((randn(sentences, 3, WIDTH // HEAD, HEAD, seed=8),), packed_self),
        "dropout_add_layer_norm": Call((randn(sentences, WIDTH), randn(sentences, WIDTH, seed=11)), layer_norm),
        "attention_weights": Call((rows, others[0]), weights),
        "prototype_lookup": Call((randn(sentences, WIDTH), bank), lookup),
        "prototype_kl": Call(
            (randn(sentences, WIDTH), randn(sentences, WIDTH, seed=5), bank),
            lambda backend, a, b, e: ops.prototype_kl(a, b, e, backend=backend),
        ),
        "info_nce": Call(pairs, lambda backend, a, b: ops.info_nce(a, b, 10.0, backend=backend)),
        "segment_info_nce": Call(
            pairs, lambda backend, a, b: ops.segment_info_nce(a, b, 10.0, cu, longest, backend=backend)
        ),
        "segment_mean": Call((rows[:, 0],), lambda backend, x: ops.segment_mean(x, cu, backend=backend)),
        "segment_softmax_pool": Call(
            (rows[:, 0], randn(sentences, seed=6)),
            lambda backend, x, scores: ops.segment_softmax_pool(x, scores, cu, backend=backend),
        ),
        "upsampled_conv": Call(
            (randn(REPORTS, 16, 7, 7, seed=12), randn(16, 16, 3, 3, seed=13)),
            lambda backend, x, weight: ops.upsampled_conv(x, weight, backend=backend),
        ),
    }


NAMES = tuple(calls())


def results(call: Call, backend: str, floats: list[Tensor]) -> list[Tensor]:
    """The result, and the gradients of its sum weighted by fixed numbers."""
    output = call.run(backend, *floats)
    weight = randn(*output.shape, seed=9).to(output.dtype)
    return [output, *torch.autograd.grad((output * weight).sum(), floats)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_errs_no_more_than_plain_pytorch(name: str, dtype: torch.dtype) -> None:
    call = calls()[name]
    low = [x.to(dtype).requires_grad_() for x in call.floats]
    truth = results(call, "reference", [x.detach().double().requires_grad_() for x in low])
    plain, ours = (results(call, backend, low) for backend in ("reference", "triton"))
    for a, b, t in zip(ours, plain, truth, strict=True):
        error, yardstick = ((x.double() - t).abs().max().item() for x in (a, b))
        roundings = REPORTS**0.5 * 4 if dtype == torch.float32 else 1  # a random walk over 16 sentences for each report
        assert error <= 2 * yardstick + roundings * torch.finfo(dtype).eps * t.abs().max().item()


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_are_equal(name: str) -> None:
    call = calls()[name]
    floats = [x.float().requires_grad_() for x in call.floats]
    assert all(map(torch.equal, results(call, "triton", floats), results(call, "triton", floats)))


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_nothing_waits_and_a_graph_repeats_it(name: str) -> None:
    call = calls()[name]
    floats = [x.bfloat16().requires_grad_() for x in call.floats]
    stream: Any = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    # Everything runs on one stream: an input's gradient stays on the stream where it was first made, and a capture must
    # not wait for another stream.
    with torch.cuda.stream(stream):
        weight = torch.ones_like(call.run("triton", *floats))

        def step() -> list[Tensor]:
            output = call.run("triton", *floats)
            return [x.detach() for x in (output, *torch.autograd.grad(output, floats, weight))]

        wanted = step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                captured = step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for _ in range(3):
        graph.replay()
        assert all(map(torch.equal, captured, wanted))

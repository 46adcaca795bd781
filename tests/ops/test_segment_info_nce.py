import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from prior_fast import ops
from tests.ops.segment_backends import (
    backends,
    cpp_dtypes,
    golden_backends,
    kernels,
    kernels_and_dtypes,
    needs_library,
    precisions_of_kernels,
    threads,
)


def naive(a, b, scale, lengths):
    losses = []
    for x, y in zip(a.split(lengths), b.split(lengths), strict=True):
        if len(x):
            logits, labels = scale * x @ y.T, torch.arange(len(x))
            losses.append((cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2)
    return torch.stack(losses).mean()


def units(rng, n, d, noise=0.5):
    """Pairs of vectors that are near each other."""
    a = torch.from_numpy(rng.standard_normal((n, d)))
    b = normalize(a, dim=1) + noise / d**0.5 * torch.from_numpy(rng.standard_normal((n, d)))
    return normalize(a, dim=1).requires_grad_(), normalize(b, dim=1).requires_grad_()


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attention(x, other, of_x, of_other, p, cu_x, cu_other, longest_x, longest_other):
    q, k, v = (linear(x, p, f"attn.query{of_x}"), *(linear(other, p, f"attn.{n}{of_other}") for n in ("key", "value")))
    sizes = cu_x, cu_other, longest_x, longest_other
    return ops.sigmoid_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), *sizes).squeeze(1)


@golden_backends
@pytest.mark.parametrize("case", ["t07", "t01"])
def test_golden_local_alignment(case, golden_case, gradients, offsets):
    """PRIOR's local alignment, put together from the ops: attention both ways, then both losses."""
    file, backend = golden_case("local_alignment")
    image, text, p = file.leaf("image"), file.leaf("text"), file.parameters("p.")
    scale = file.leaf(f"{case}.local_logit_scale")
    lengths = file["lengths"].tolist()
    reports, longest = len(lengths), max(lengths)
    tokens = image.flatten(0, 1)
    cu_image, cu_text = offsets(*[49] * reports), offsets(*lengths)
    for_image = attention(tokens, text, 1, 2, p, cu_image, cu_text, 49, longest)
    for_text = attention(text, tokens, 2, 1, p, cu_text, cu_image, longest, 49)

    def predict(x):
        return linear(linear(x, p, "pred.0").relu(), p, "pred.2")

    similarity = cosine_similarity(predict(tokens), for_image.detach(), dim=-1)
    similarity = similarity + cosine_similarity(predict(for_image), tokens.detach(), dim=-1)
    image_loss = ops.segment_mean(-similarity.unsqueeze(1) / 2, cu_image).mean()
    sentences = normalize(text, dim=1), normalize(for_text, dim=1)
    text_loss = ops.segment_info_nce(*sentences, scale.exp(), cu_text, longest, backend=backend)

    losses = {"text": text_loss}
    if case == "t07":  # the image part does not depend on the scale and is stored once
        losses["image"] = image_loss
        file.check(for_image.view(reports, 49, 64), "t07.text_to_local_image_embed")
    names = ["image", "text", "local_logit_scale", *(f"p.{name}" for name in p)]
    for side, loss in losses.items():
        file.check_scalar(loss, f"{case}.local_{side}_loss")
        for name, gradient in zip(names, gradients(loss, [image, text, scale, *p.values()]), strict=True):
            stored = f"{case}.g_{side}loss.{name}"
            file.check(gradient.reshape(file[stored].shape), stored)


@pytest.mark.parametrize("lengths", [(1,), (4, 7, 1, 12), (0, 3, 0, 5), (2, 2)])
@pytest.mark.parametrize("spare", [0, 3])
def test_shapes(lengths, spare, randn, offsets, check_equal):
    n = sum(lengths)
    check_equal(
        lambda a, b, scale: ops.segment_info_nce(a, b, scale, offsets(*lengths), max(lengths) + spare),
        lambda a, b, scale: naive(a, b, scale, lengths),
        *(randn(n, 5), randn(n, 5), randn()),
    )


@backends
def test_rows_of_other_segments_are_no_negatives(backend, randn, offsets, gradients):
    """Two segments give the mean of their own losses, and one does not change the gradient of the other."""
    a, b = (x.detach().float().requires_grad_() for x in (randn(7, 5), randn(7, 5)))
    loss = ops.segment_info_nce(a, b, 2.0, offsets(3, 4), 4, backend=backend)
    alone = [ops.info_nce(x, y, 2.0, backend="reference") for x, y in zip(a.split([3, 4]), b.split([3, 4]))]
    torch.testing.assert_close(loss, sum(alone) / 2, rtol=1e-4, atol=1e-5)
    expected = gradients(alone[0], [a])[0] / 2
    torch.testing.assert_close(gradients(loss, [a])[0][:3], expected[:3], rtol=1e-4, atol=1e-5)


def test_one_segment_is_info_nce(randn, offsets):
    a, b = randn(6, 4), randn(6, 4)
    torch.testing.assert_close(ops.segment_info_nce(a, b, 3.0, offsets(6), 6), ops.info_nce(a, b, 3.0))


@backends
def test_reports_of_one_sentence_are_exactly_zero(backend, randn, offsets, gradients):
    leaves = [x.detach().float().requires_grad_() for x in (randn(3, 5), randn(3, 5), 100 * randn())]
    loss = ops.segment_info_nce(*leaves, offsets(1, 1, 1), 1, backend=backend)
    assert loss.item() == 0 and all(not g.any() for g in gradients(loss, leaves))


@backends
def test_no_rows(backend, offsets, gradients):
    leaves = [torch.zeros(0, 3, requires_grad=True), torch.tensor(2.0, requires_grad=True)]
    for cu in (offsets(), offsets(0, 0)):
        for longest in (0, 5):
            loss = ops.segment_info_nce(leaves[0], torch.zeros(0, 3), leaves[1], cu, longest, backend=backend)
            da, dscale = gradients(loss, leaves)
            assert loss.item() == 0 and da.shape == (0, 3) and dscale.item() == 0


@backends
def test_large_logits_stay_finite(backend, offsets, gradients):
    a = torch.eye(5, requires_grad=True)
    loss = ops.segment_info_nce(a, torch.eye(5).roll(1, 0), 1e4, offsets(3, 2), 3, backend=backend)
    assert loss.isfinite() and gradients(loss, [a])[0].isfinite().all()


def test_non_contiguous(randn, offsets, check_equal):
    check_equal(
        lambda a, b: ops.segment_info_nce(a.T, b[::2], 2.0, offsets(2, 3), 3),
        lambda a, b: naive(a.T, b[::2], 2.0, (2, 3)),
        *(randn(3, 5), randn(10, 3)),
    )


def test_precision(randn, offsets, check_precision):
    lengths = (4, 9, 1, 10)
    check_precision(
        lambda a, b: ops.segment_info_nce(a, b, 14.0, offsets(*lengths), 10),
        lambda a, b: naive(a, b, 14.0, lengths),
        *(normalize(randn(24, 16), dim=1) for _ in range(2)),
    )


@pytest.mark.parametrize(
    ("lengths", "width", "scale", "noise"),
    [
        ((4, 9, 1, 10), 16, 14.0, 2.0),
        ((0, 3, 0, 17), 40, 100.0, 5.0),  # large logits, rows that are hard to distinguish; a segment of two tiles
        ((40, 1, 33, 5), 5, 1.0, 0.5),
        ((6, 12), 3, -3.0, 0.5),
    ],
)
@precisions_of_kernels
def test_precision_of_kernels(backend, lengths, width, scale, noise, rng, offsets, check_precision):
    longest = max(lengths) + len(lengths) % 2
    check_precision(
        lambda a, b, scale: ops.segment_info_nce(a, b, scale, offsets(*lengths), longest, backend=backend),
        lambda a, b, scale: naive(a, b, scale, lengths),
        *units(rng, sum(lengths), width, noise),
        torch.tensor(scale).double().requires_grad_(),
    )


@kernels_and_dtypes
def test_precision_of_losses_near_zero(backend, dtype, offsets):
    """Here one exponential of a large logit is nearly all of the loss, so a single draw's error is one rounding, in
    plain PyTorch and in the kernel. The test compares the worst errors over several draws."""
    lengths, errors = (16, 7), []
    for seed in range(6):
        low = [x.detach().to(dtype).requires_grad_() for x in units(np.random.default_rng(seed), 23, 20, 1.0)]
        low.append(torch.tensor(100.0, requires_grad=True, dtype=dtype))
        runs = []
        for function, leaves in (
            (lambda *x: ops.segment_info_nce(*x, offsets(*lengths), 16, backend=backend), low),
            (lambda *x: naive(*x, lengths), low),
            (lambda *x: naive(*x, lengths), [x.detach().double().requires_grad_() for x in low]),
        ):
            loss = function(*leaves)
            runs.append([loss, *torch.autograd.grad(loss, leaves)])
        true = runs.pop()
        errors.append(
            [[((x - t).abs().max() / t.abs().max()).item() for x, t in zip(run, true, strict=True)] for run in runs]
        )
    found, plain = torch.tensor(errors).amax(dim=0)
    assert (found <= 2 * plain + torch.finfo(dtype).eps).all(), (found, plain)
    if dtype == torch.float32:
        assert (found <= 100 * 2**-23 * 4).all(), "the rounding of a logit, and no cancellation on top"


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    width=st.integers(1, 40),
    scale=st.sampled_from([0.0, 0.1, -5.0, 20.0]),
    spare=st.integers(0, 20),
    int64=st.booleans(),
)
@kernels
def test_any_shape(backend, lengths, width, scale, spare, int64):
    a, b = (x.detach().float() for x in units(np.random.default_rng(width), sum(lengths), width, 1.0))
    leaves = [a.T.contiguous().T.requires_grad_(), b.requires_grad_(), torch.tensor(scale, requires_grad=True)]
    cu = torch.tensor([0, *lengths]).cumsum(0).to(torch.int64 if int64 else torch.int32)
    longest = max(lengths) + spare
    found, wanted = (ops.segment_info_nce(*leaves, cu, longest, backend=backend) for backend in (backend, "reference"))
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=2e-5)
    for pair in zip(*(torch.autograd.grad(loss, leaves) for loss in (found, wanted)), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)


def test_triton_is_one_launch_for_all_reports(offsets):
    """Forward also launches one kernel for the mean; backward launches one kernel. No tensor has quadratic size."""
    from prior_fast.kernels.common.launch import recording
    from prior_fast.kernels.segment_info_nce import segment_info_nce_bwd, segment_info_nce_fwd

    a, scale, cu = torch.empty(600, 32, device="meta"), torch.empty((), device="meta"), offsets(*[300, 300])
    with recording() as forward:
        loss, *saved, stats = segment_info_nce_fwd(a, a, scale, cu, 300)
    with recording() as backward:
        segment_info_nce_bwd(loss, a, a, scale, cu, *saved, stats, 300)
    tensors = [x for call in forward + backward for x in call.arguments.values() if isinstance(x, torch.Tensor)]
    assert (len(forward), len(backward)) == (2, 1) and max(x.numel() for x in tensors) == a.numel()


@kernels
def test_kernels_are_the_same_in_every_run(backend, rng, offsets, gradients):
    """Also under the caller's autocast."""
    leaves = [x.detach().float().requires_grad_() for x in (*units(rng, 20, 9), torch.tensor(9.0))]
    runs = []
    for dtype in (None, torch.bfloat16):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = ops.segment_info_nce(*leaves, offsets(1, 19), 19, backend=backend)
            runs.append([loss, *gradients(loss, leaves)])
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


def test_passes_opcheck(rng, offsets):
    leaves = [x.detach().float().requires_grad_() for x in (*units(rng, 5, 3), torch.tensor(3.0))]
    tensors, cu = [x.detach() for x in leaves], offsets(2, 0, 3)
    # The outputs after the first have no gradient, though they count as differentiable.
    torch.library.opcheck(torch.ops.prior_fast.segment_info_nce.default, (*leaves, cu, 3))
    loss, *saved = torch.ops.prior_fast.segment_info_nce(*tensors, cu, 3)
    torch.library.opcheck(torch.ops.prior_fast.segment_info_nce_backward.default, (loss, *tensors, cu, *saved, 3))


@needs_library
@cpp_dtypes
def test_cpp_passes_opcheck(dtype, rng, offsets):
    a, b, cu = *(x.detach().to(dtype) for x in units(rng, 5, 3)), offsets(2, 0, 3)
    for scale in (torch.tensor(3.0), torch.tensor(3.0).to(dtype)):
        torch.library.opcheck(torch.ops.prior_fast.segment_info_nce_cpp.default, (a, b, scale, cu, 16))
        loss, *saved = torch.ops.prior_fast.segment_info_nce_cpp(a, b, scale, cu, 16)
        torch.library.opcheck(
            torch.ops.prior_fast.segment_info_nce_cpp_backward.default, (loss, a, b, scale, cu, *saved)
        )


def loss_and_gradients(a, b, scale, cu, longest):
    """By the C++ kernels."""
    leaves = [x.detach().requires_grad_() for x in (a, b, scale)]
    loss = ops.segment_info_nce(*leaves, cu, longest, backend="cpp")
    return [loss, *torch.autograd.grad(loss, leaves)]


@needs_library
@cpp_dtypes
def test_threads_change_no_bit(dtype, rng, offsets):
    """Sizes of which each of two threads takes a part: short and empty segments, and a long one."""
    a, b = (x.detach().to(dtype) for x in units(rng, 120, 301))
    cu, results = offsets(0, 3, 1, 0, 70, 0, 5, 17, 16, 8, 0), []
    for count in (1, 2):
        with threads(count):
            results.append(loss_and_gradients(a, b, torch.tensor(9.0), cu, 70))
    assert all(map(torch.equal, *results))


@needs_library
@cpp_dtypes
def test_strided_rows(dtype, randn, offsets):
    """Rows that are far apart, columns that are, and every second offset."""
    wide, cu, scale = normalize(randn(30, 100).detach(), dim=1).to(dtype), offsets(7, 0, 8), torch.tensor(4.0)
    every_second = torch.stack([cu, cu + 1], dim=1)[:, 0]
    other = normalize(randn(15, 67).detach(), dim=1).to(dtype)
    for view in (wide[::2, 10:77], wide[:15, :67], wide.T[:15, :30].expand(15, 30)):
        y = other[:, : view.shape[1]]
        wanted = loss_and_gradients(view.contiguous(), y.contiguous(), scale, cu, 8)
        assert not view.is_contiguous()
        assert all(map(torch.equal, loss_and_gradients(view, y, scale, every_second, 8), wanted))


@needs_library
@pytest.mark.parametrize("scale_dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_cpp_takes_a_scale_of_any_dtype(scale_dtype, rng, offsets):
    a, b = (x.detach().float() for x in units(rng, 12, 20))
    found = loss_and_gradients(a, b, torch.tensor(2.5, dtype=scale_dtype), offsets(4, 8), 8)
    wanted = loss_and_gradients(a, b, torch.tensor(2.5), offsets(4, 8), 8)
    assert found[3].dtype == scale_dtype and all(map(torch.equal, found[:3], wanted[:3]))
    torch.testing.assert_close(found[3].float(), wanted[3], rtol=torch.finfo(scale_dtype).eps + 1e-6, atol=0)


def test_gradcheck(randn, offsets):
    assert torch.autograd.gradcheck(
        lambda a, b, scale: ops.segment_info_nce(a, b, scale, offsets(2, 0, 3, 1), 3),
        (randn(6, 2), randn(6, 2), randn()),
    )


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    cases = ((3, 4), (5, 2, 6))
    check_compiled(
        ops.segment_info_nce,
        *((randn(sum(n), 8), randn(sum(n), 8), randn(), offsets(*n), max(n)) for n in cases),
    )


@kernels
def test_kernels_compile_to_one_graph(backend, randn, offsets, check_compiled):
    def function(a, b, scale, cu, longest):
        a, b, scale = a.float(), b.float(), scale.float()
        loss = ops.segment_info_nce(a, b, scale, cu, longest, backend=backend)
        return (loss + ops.segment_info_nce(b, 2 * a, 3.0, cu, longest, backend=backend)).double()

    cases = ((3, 4), (5, 2, 6))
    check_compiled(function, *((randn(sum(n), 8), randn(sum(n), 8), randn(), offsets(*n), max(n)) for n in cases))


@backends
def test_the_gradient_of_the_scale_alone(backend, randn, offsets):
    a, b, scale = randn(6, 3).detach().float(), randn(6, 3).detach().float(), torch.tensor(2.0, requires_grad=True)
    loss = ops.segment_info_nce(a, b, scale, offsets(2, 4), 4, backend=backend)
    twin = scale.detach().double().requires_grad_()
    wanted = ops.segment_info_nce(a.double(), b.double(), twin, offsets(2, 4), 4)
    (found,), (expected,) = torch.autograd.grad(loss, [scale]), torch.autograd.grad(wanted, [twin])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_reads_nothing_back(randn, offsets, no_host_read):
    leaves, cu = [randn(6, 3), randn(6, 3), randn()], offsets(2, 0, 4)
    with no_host_read:
        ops.segment_info_nce(*leaves, cu, 4).backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": torch.zeros(5, 3)}, r"b has shape \[5, 3\], wanted \[T, D\] with D = 4 as in a"),
        ({"b": torch.zeros(5, 4).bfloat16()}, r"b has dtype torch.bfloat16, wanted torch.float32, the dtype of a"),
        (
            {"a": torch.zeros(0, 4), "b": torch.zeros(0, 4), "cu_seqlens": torch.tensor([0]), "max_seqlen": -1},
            r"max_seqlen is -1, wanted 0 or more",
        ),
        ({"max_seqlen": 2}, r"max_seqlen is 2, but segment 1 of cu_seqlens has 3 rows"),
        ({"cu_seqlens": torch.tensor([0, 2])}, r"cu_seqlens ends at 2, wanted 5, the rows of a"),
        ({"logit_scale": "1"}, r"logit_scale must be a number, got str"),
        ({"backend": "scipy"}, r"this op has no such backend"),
    ],
)
def test_wrong_arguments(change, message, offsets):
    x = torch.zeros(5, 4)
    arguments = {"a": x, "b": x, "logit_scale": 1.0, "cu_seqlens": offsets(2, 3), "max_seqlen": 3} | change
    with pytest.raises(ValueError, match=message):
        ops.segment_info_nce(**arguments)

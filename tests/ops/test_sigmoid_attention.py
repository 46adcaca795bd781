import pytest
import torch

from prior_fast import ops


def naive(q, k, v, lengths_q, lengths_k, *, scale=None, bias=0.0, activation="sigmoid"):
    """Segment after segment, in the dtype of the inputs."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    outputs = []
    for qs, ks, vs in zip(q.split(lengths_q), k.split(lengths_k), v.split(lengths_k), strict=True):
        logits = (qs.transpose(0, 1) @ ks.permute(1, 2, 0)) * scale + bias
        weights = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=-1)
        outputs.append((weights @ vs.transpose(0, 1)).transpose(0, 1))
    return torch.cat(outputs)


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def test_golden_local_cross_attention(golden_file, gradients, offsets):
    file = golden_file("local_cross_attention")
    image, text, p = file.leaf("image"), file.leaf("text"), file.parameters("p.")
    cu_image, cu_text = offsets(49), offsets(7)
    results = {}
    for side, x, other, cu_x, cu_other, of_x, of_other in (
        ("image", image, text, cu_image, cu_text, "1", "2"),
        ("text", text, image, cu_text, cu_image, "2", "1"),
    ):
        q, k, v = (
            linear(source, p, name).unsqueeze(1)
            for source, name in ((x, f"query{of_x}"), (other, f"key{of_other}"), (other, f"value{of_other}"))
        )
        sizes = (cu_x, cu_other, x.shape[0], other.shape[0])
        over = "text" if side == "image" else "image"
        results[f"ctx_for_{side}"] = ops.sigmoid_attention(q, k, v, *sizes).squeeze(1)
        results[f"probs_{side}_over_{over}"] = ops.attention_weights(q, k, *sizes)[0, 0]
    for name, value in results.items():
        file.check(value, name)
    total = sum((value * file[f"w.{name}"].to(value.dtype)).sum() for name, value in results.items())
    file.check_scalar(total, "weighted_sum")
    found = gradients(total, [image, text, *p.values()])
    for name, gradient in zip(["image", "text", *(f"p.{name}" for name in p)], found, strict=True):
        file.check(gradient, f"g.{name}")


def test_golden_sentence_attention_pool(golden_file, gradients, offsets):
    """Multi-head softmax attention of each report's mean to the report with its mean in front."""
    file = golden_file("sentence_attention_pool")
    x, p = file.leaf("input"), file.parameters("p.")
    lengths = file["lengths"].tolist()
    means = ops.segment_mean(x, offsets(*lengths))
    keys = torch.cat([piece for m, rows in zip(means, x.split(lengths), strict=True) for piece in (m[None], rows)])
    q, k, v = (
        linear(rows, p, f"{name}_proj").view(rows.shape[0], 8, 8)
        for name, rows in (("q", means), ("k", keys), ("v", keys))
    )
    cu_k = offsets(*(n + 1 for n in lengths))
    pooled = ops.sigmoid_attention(q, k, v, offsets(1, 1, 1), cu_k, 1, max(lengths) + 1, activation="softmax")
    output = linear(pooled.flatten(1), p, "c_proj")
    file.check(output, "output")
    found = gradients((output * file["w"].to(output.dtype)).sum(), [x, *p.values()])
    for name, gradient in zip(["input", *(f"p.{name}" for name in p)], found, strict=True):
        file.check(gradient, f"g.{name}")


# PRIOR's own shapes are in the golden file; here a single row, odd numbers, empty sides and segments, several heads.
SHAPES = [
    ((1,), (1,), 1, 1, 1),
    ((3, 1, 5), (2, 7, 1), 1, 5, 3),
    ((2, 0, 3), (0, 4, 5), 3, 4, 7),
    ((0, 0), (0, 0), 2, 3, 3),
    ((4, 3), (0, 0), 1, 2, 2),
    ((0,), (5,), 1, 2, 2),
]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lengths_q", "lengths_k", "heads", "d", "dv"), SHAPES)
def test_shapes(lengths_q, lengths_k, heads, d, dv, activation, randn, offsets, check_equal):
    inputs = randn(sum(lengths_q), heads, d), randn(sum(lengths_k), heads, d), randn(sum(lengths_k), heads, dv)
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    options = {"scale": 0.7, "bias": -0.3, "activation": activation}
    check_equal(
        lambda q, k, v: ops.sigmoid_attention(q, k, v, *sizes, **options),
        lambda q, k, v: naive(q, k, v, lengths_q, lengths_k, **options),
        *inputs,
    )


def test_no_segment(offsets):
    empty = torch.zeros(0, 2, 3)
    assert ops.sigmoid_attention(empty, empty, empty, offsets(), offsets(), 0, 0).shape == (0, 2, 3)


def test_non_contiguous_and_longer_maximum(randn, offsets, check_equal):
    q, k, v = randn(2, 4, 5), randn(2, 4, 6), randn(2, 3, 6)
    sizes = offsets(2, 3), offsets(5, 1), 9, 8
    check_equal(
        lambda *inputs: ops.sigmoid_attention(*(x.permute(2, 0, 1) for x in inputs), *sizes),
        lambda *inputs: naive(*(x.permute(2, 0, 1) for x in inputs), (2, 3), (5, 1)),
        *(q, k, v),
    )


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_precision(activation, randn, offsets, check_precision):
    lengths_q, lengths_k = (9, 9, 9), (4, 1, 12)
    check_precision(
        lambda q, k, v: ops.sigmoid_attention(
            q, k, v, offsets(*lengths_q), offsets(*lengths_k), 9, 12, activation=activation
        ),
        lambda q, k, v: naive(q, k, v, lengths_q, lengths_k, activation=activation),
        randn(27, 2, 32),
        randn(17, 2, 32),
        randn(17, 2, 32),
    )


def test_autocast_does_not_lower_precision(randn, offsets):
    x = randn(6, 1, 16).detach().float()
    plain = ops.sigmoid_attention(x, x, x, offsets(4, 2), offsets(4, 2), 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ops.sigmoid_attention(x, x, x, offsets(4, 2), offsets(4, 2), 4, 4)
    assert torch.equal(plain, inside)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_gradcheck(activation, randn, offsets):
    assert torch.autograd.gradcheck(
        lambda q, k, v: ops.sigmoid_attention(
            q, k, v, offsets(2, 1, 0), offsets(1, 0, 3), 2, 3, bias=0.2, activation=activation
        ),
        (randn(3, 2, 2), randn(4, 2, 2), randn(4, 2, 3)),
    )


def test_other_segments_do_not_leak(randn, offsets):
    q, k, v = randn(4, 1, 3), randn(5, 1, 3), randn(5, 1, 3)
    with torch.no_grad():
        k[3:], v[3:] = torch.nan, torch.nan
    output = ops.sigmoid_attention(q, k, v, offsets(2, 2), offsets(3, 2), 2, 3)
    assert output[:2].isfinite().all() and output[2:].isnan().all()


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    def case(lengths_q, lengths_k):
        return (
            *(randn(sum(n), 2, 4) for n in (lengths_q, lengths_k, lengths_k)),
            *(offsets(*n) for n in (lengths_q, lengths_k)),
            *(max(n) for n in (lengths_q, lengths_k)),
        )

    check_compiled(ops.sigmoid_attention, case((3, 4), (2, 6)), case((7, 2, 4), (3, 3, 6)))


def test_reads_nothing_back(randn, offsets, no_host_read):
    q, k, v = randn(5, 2, 4), randn(6, 2, 4), randn(6, 2, 3)
    sizes = offsets(2, 3), offsets(0, 6)
    with no_host_read:
        for activation in ("sigmoid", "softmax"):
            ops.sigmoid_attention(q, k, v, *sizes, 3, 6, activation=activation).sum().backward()


def arguments(offsets):
    x = torch.zeros(5, 2, 4)
    return {
        "q": x,
        "k": x,
        "v": x,
        "cu_seqlens_q": offsets(2, 3),
        "cu_seqlens_k": offsets(4, 1),
        "max_seqlen_q": 3,
        "max_seqlen_k": 4,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(5, 4)}, r"q has shape \[5, 4\], wanted \[Tq, H, D\], 3 dimensions"),
        ({"k": torch.zeros(5, 1, 4)}, r"k has shape \[5, 1, 4\], wanted \[Tk, H, D\] with H = 2 as in q"),
        ({"v": torch.zeros(4, 2, 4)}, r"v has shape \[4, 2, 4\], wanted \[Tk, H, Dv\] with Tk = 5 as in k"),
        ({"v": torch.zeros(5, 2, 4).half()}, r"v has dtype torch.float16, wanted torch.float32, the dtype of k"),
        ({"k": torch.zeros(5, 2, 4, device="meta")}, r"k is on meta, wanted cpu, the device of q"),
        ({"q": torch.zeros(5, 2, 4, dtype=torch.int32)}, r"q has dtype torch.int32, wanted one of float32"),
        ({"q": [1.0]}, r"q must be a tensor \[Tq, H, D\], got list"),
        ({"cu_seqlens_q": torch.tensor([0.0, 5.0])}, r"cu_seqlens_q has dtype torch.float32, wanted one of int32"),
        ({"cu_seqlens_q": torch.tensor([[0, 5]])}, r"cu_seqlens_q has shape \[1, 2\], wanted \[B\+1\]"),
        ({"cu_seqlens_k": torch.tensor([0, 5])}, r"cu_seqlens_k has shape \[2\], wanted \[3\], for 2 segments"),
        ({"cu_seqlens_k": torch.tensor([1, 4, 5])}, r"cu_seqlens_k starts at 1, wanted 0"),
        ({"cu_seqlens_k": torch.tensor([0, 6, 5])}, r"cu_seqlens_k decreases from 6 to 5 at segment 1"),
        ({"cu_seqlens_k": torch.tensor([0, 3, 4])}, r"cu_seqlens_k ends at 4, wanted 5, the rows of k"),
        ({"max_seqlen_k": 3}, r"max_seqlen_k is 3, but segment 0 of cu_seqlens_k has 4 rows"),
        ({"max_seqlen_q": torch.tensor(3)}, r"max_seqlen_q must be a Python int, got Tensor"),
        ({"max_seqlen_q": -1}, r"max_seqlen_q is -1, wanted 0 or more"),
        ({"activation": "relu"}, r"activation is 'relu', wanted one of sigmoid, softmax"),
        ({"scale": "big"}, r"scale must be a number, got str"),
        ({"bias": torch.zeros(())}, r"bias must be a number, got Tensor"),
        ({"backend": "scipy"}, r"sigmoid_attention: backend='scipy': this op has no such backend"),
    ],
)
def test_wrong_arguments(change, message, offsets):
    with pytest.raises(ValueError, match=message):
        ops.sigmoid_attention(**(arguments(offsets) | change))

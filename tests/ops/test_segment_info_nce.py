import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

from prior_fast import ops


def naive(a, b, scale, lengths):
    losses = []
    for x, y in zip(a.split(lengths), b.split(lengths), strict=True):
        if len(x):
            logits, labels = scale * x @ y.T, torch.arange(len(x))
            losses.append((cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2)
    return torch.stack(losses).mean()


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def attention(x, other, of_x, of_other, p, cu_x, cu_other, longest_x, longest_other):
    q, k, v = (linear(x, p, f"attn.query{of_x}"), *(linear(other, p, f"attn.{n}{of_other}") for n in ("key", "value")))
    sizes = cu_x, cu_other, longest_x, longest_other
    return ops.sigmoid_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1), *sizes).squeeze(1)


@pytest.mark.parametrize("case", ["t07", "t01"])
def test_golden_local_alignment(case, golden_file, gradients, offsets):
    """PRIOR's local alignment, put together from the ops: attention both ways, then both losses."""
    file = golden_file("local_alignment")
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
    text_loss = ops.segment_info_nce(normalize(text, dim=1), normalize(for_text, dim=1), scale.exp(), cu_text, longest)

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


def test_one_segment_is_info_nce(randn, offsets):
    a, b = randn(6, 4), randn(6, 4)
    torch.testing.assert_close(ops.segment_info_nce(a, b, 3.0, offsets(6), 6), ops.info_nce(a, b, 3.0))


def test_reports_of_one_sentence_are_exactly_zero(randn, offsets, gradients):
    leaves = [randn(3, 5), randn(3, 5), randn()]
    loss = ops.segment_info_nce(*leaves, offsets(1, 1, 1), 1)
    assert loss.item() == 0 and all(not g.any() for g in gradients(loss, leaves))


def test_no_rows(offsets):
    for cu in (offsets(), offsets(0, 0)):
        assert ops.segment_info_nce(torch.zeros(0, 3), torch.zeros(0, 3), 1.0, cu, 0).item() == 0


def test_large_logits_stay_finite(offsets, gradients):
    a = torch.eye(5, requires_grad=True)
    loss = ops.segment_info_nce(a, torch.eye(5).roll(1, 0), 1e4, offsets(3, 2), 3)
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


def test_reads_nothing_back(randn, offsets, no_host_read):
    leaves, cu = [randn(6, 3), randn(6, 3), randn()], offsets(2, 0, 4)
    with no_host_read:
        ops.segment_info_nce(*leaves, cu, 4).backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": torch.zeros(5, 3)}, r"b has shape \[5, 3\], wanted \[T, D\] with D = 4 as in a"),
        ({"b": torch.zeros(5, 4).bfloat16()}, r"b has dtype torch.bfloat16, wanted torch.float32, the dtype of a"),
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

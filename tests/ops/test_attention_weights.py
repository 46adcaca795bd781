import pytest
import torch

from prior_fast import ops


def naive(q, k, lengths_q, lengths_k, activation):
    weights = q.new_zeros(len(lengths_q), q.shape[1], max(lengths_q), max(lengths_k))
    for b, (qs, ks) in enumerate(zip(q.split(lengths_q), k.split(lengths_k), strict=True)):
        logits = (qs.transpose(0, 1) @ ks.permute(1, 2, 0)) * q.shape[-1] ** -0.5
        block = logits.sigmoid() if activation == "sigmoid" else logits.softmax(dim=-1)
        weights[b, :, : len(qs), : len(ks)] = block
    return weights


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize(("lengths_q", "lengths_k"), [((3, 1, 5), (2, 7, 1)), ((2, 0), (0, 4)), ((1,), (1,))])
def test_shapes(lengths_q, lengths_k, activation, randn, offsets, check_equal):
    sizes = offsets(*lengths_q), offsets(*lengths_k), max(lengths_q), max(lengths_k)
    check_equal(
        lambda q, k: ops.attention_weights(q, k, *sizes, activation=activation),
        lambda q, k: naive(q, k, lengths_q, lengths_k, activation),
        randn(sum(lengths_q), 3, 5),
        randn(sum(lengths_k), 3, 5),
    )


def test_agree_with_the_attention(randn, offsets):
    q, k, v = randn(5, 2, 4), randn(6, 2, 4), randn(6, 2, 3)
    sizes = offsets(2, 3), offsets(5, 1), 3, 5
    weights = ops.attention_weights(q, k, *sizes, bias=0.5)
    output = ops.sigmoid_attention(q, k, v, *sizes, bias=0.5)
    torch.testing.assert_close(torch.einsum("hqk,khd->qhd", weights[0, :, :2, :5], v[:5]), output[:2])
    torch.testing.assert_close(torch.einsum("hqk,khd->qhd", weights[1, :, :3, :1], v[5:]), output[2:])


def test_precision(randn, offsets, check_precision):
    check_precision(
        lambda q, k: ops.attention_weights(q, k, offsets(9, 2), offsets(4, 12), 9, 12),
        lambda q, k: naive(q, k, (9, 2), (4, 12), "sigmoid"),
        randn(11, 2, 32),
        randn(16, 2, 32),
    )


def test_gradcheck(randn, offsets):
    assert torch.autograd.gradcheck(
        lambda q, k: ops.attention_weights(q, k, offsets(2, 1), offsets(1, 3), 2, 3), (randn(3, 1, 2), randn(4, 1, 2))
    )


def test_compiles_to_one_graph(randn, offsets, check_compiled):
    check_compiled(
        ops.attention_weights,
        (randn(7, 2, 4), randn(6, 2, 4), offsets(3, 4), offsets(2, 4), 4, 5),
        (randn(9, 2, 4), randn(8, 2, 4), offsets(2, 2, 5), offsets(2, 3, 3), 6, 3),
    )


def test_reads_nothing_back(randn, offsets, no_host_read):
    q, k, sizes = randn(5, 2, 4), randn(6, 2, 4), (offsets(2, 3), offsets(0, 6), 3, 6)
    with no_host_read:
        ops.attention_weights(q, k, *sizes).sum().backward()


def test_wrong_arguments(offsets):
    x = torch.zeros(5, 2, 4)
    with pytest.raises(ValueError, match=r"max_seqlen_q is 2, but segment 0 of cu_seqlens_q has 5 rows"):
        ops.attention_weights(x, x, offsets(5), offsets(5), 2, 5)
    with pytest.raises(ValueError, match=r"k has shape \[5, 2, 3\], wanted \[Tk, H, D\] with D = 4 as in q"):
        ops.attention_weights(x, torch.zeros(5, 2, 3), offsets(5), offsets(5), 5, 5)

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prior_fast.ops.common.segments import (
    pad,
    padded_index,
    padding_mask,
    segment_ids,
    segment_lengths,
    segment_sum,
    unpad,
)

lengths_strategy = st.lists(st.integers(0, 6), max_size=8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lengths=lengths_strategy, spare=st.integers(0, 3), dtype=st.sampled_from([torch.int32, torch.int64]))
def test_against_loops(lengths, spare, dtype):
    cu = torch.tensor([sum(lengths[:i]) for i in range(len(lengths) + 1)], dtype=dtype)
    rows, longest = sum(lengths), max(lengths, default=0) + spare
    places = [(b, i) for b, n in enumerate(lengths) for i in range(n)]
    assert segment_lengths(cu).tolist() == lengths
    assert segment_ids(cu, rows).tolist() == [b for b, _ in places]
    assert padded_index(cu, rows, longest).tolist() == [b * longest + i for b, i in places]
    assert padding_mask(cu, longest).tolist() == [[i < n for i in range(longest)] for n in lengths]

    x = torch.arange(rows * 2, dtype=torch.float64).view(rows, 2) + 1
    padded = pad(x, cu, longest)
    assert padded.shape == (len(lengths), longest, 2)
    wanted = torch.zeros_like(padded)
    for row, (b, i) in zip(x, places, strict=True):
        wanted[b, i] = row
    assert torch.equal(padded, wanted)
    assert torch.equal(unpad(padded, cu, rows), x)
    assert torch.equal(segment_sum(x, segment_ids(cu, rows), len(lengths)), wanted.sum(dim=1))


def test_gradient_of_the_padding_is_dropped(randn, offsets):
    x = randn(5, 2)
    weights = torch.arange(12.0, dtype=torch.float64).view(2, 3, 2)
    (pad(x, offsets(2, 3), 3) * weights).sum().backward()
    torch.testing.assert_close(x.grad, torch.cat([weights[0, :2], weights[1]]))


def test_reads_nothing_back(randn, offsets, no_host_read):
    x, cu = randn(5, 2), offsets(2, 0, 3)
    with no_host_read:
        unpad(pad(x, cu, 3), cu, 5).sum().backward()


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: bool((x > 0).any()),
        lambda x: x.unique(),
        lambda x: x.index_put((x > 0,), torch.zeros((), dtype=x.dtype)),
    ],
)
def test_the_guard_sees_reads(read, randn, no_host_read):
    x = randn(3, 2).detach()
    with no_host_read, pytest.raises(AssertionError, match=r"^aten\."):
        read(x)

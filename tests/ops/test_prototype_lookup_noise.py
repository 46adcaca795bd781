"""The noise that prototype_lookup makes from a seed."""

import pytest
import torch
from scipy import stats

from prior_fast import ops
from prior_fast.ops.common.philox import gumbel


@pytest.mark.parametrize("key", [0, -1, 2**40 + 7, 2**63 - 1, -(2**63)])
def test_noise_has_the_words_of_the_contract(key):
    import triton
    import triton.language as tl

    from prior_fast.kernels._philox import philox_word
    from prior_fast.ops.common.philox import philox_uint32

    @triton.jit
    def kernel(seed_ptr, counter_ptr, word_ptr, philox_word: tl.constexpr, BLOCK: tl.constexpr):
        i = tl.arange(0, BLOCK)
        tl.store(word_ptr + i, philox_word(tl.load(seed_ptr), tl.load(counter_ptr + i)).to(tl.int64))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    seed = torch.tensor(key, device=device)
    counters = torch.tensor([0, 1, 2**32 - 1, 2**32, 2**53 + 1, 2**62 + 5, -1, 12345678901234], device=device)
    words = torch.empty_like(counters)
    kernel[(1,)](seed, counters, words, philox_word, 8)
    assert torch.equal(words, philox_uint32(seed, counters)[0])


def kernel_noise(seed, rows, columns, first_row=0):
    """The noise that the kernel adds: the logits that it returns for zero inputs."""
    from prior_fast.kernels.prototype_lookup import prototype_lookup_fwd

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, bank = torch.zeros(rows, 1, device=device), torch.zeros(columns, 1, device=device)
    key = torch.tensor(seed, device=device)
    return prototype_lookup_fwd(x, bank, torch.ones((), device=device), None, key, first_row)[3].cpu()


def test_noise_is_the_references_at_any_place():
    """A tile holds 32 x 64 numbers; another first row puts numbers into other tiles, also beyond 2**32 numbers."""
    for first_row in (0, 5, 2**33):
        noise = kernel_noise(3, 40, 70, first_row)
        torch.testing.assert_close(noise, gumbel(3, 40, 70, first_row), rtol=1e-6, atol=1e-6)
        assert torch.equal(noise[9:], kernel_noise(3, 31, 70, first_row + 9))


def test_noise_is_gumbel_and_independent():
    noise = kernel_noise(2024, 192, 128)
    assert stats.kstest(noise.flatten().numpy(), stats.gumbel_r.cdf).pvalue > 0.01
    # Each row separately: there are as many small p-values as expected by chance.
    p_values = [stats.kstest(row.numpy(), stats.gumbel_r.cdf).pvalue for row in noise[::4]]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    # The rank correlations of independent rows are standard normal after division by their standard deviation.
    ranks = torch.from_numpy(stats.rankdata(noise.numpy(), axis=1))
    for table in (ranks, torch.from_numpy(stats.rankdata(noise.T.numpy(), axis=1))):
        correlations = torch.corrcoef(table)[torch.triu_indices(len(table), len(table), 1).unbind()]
        deviation = (table.shape[1] - 1) ** -0.5
        assert correlations.abs().max() < 6 * deviation
        assert correlations.std().item() == pytest.approx(deviation, rel=0.05)
        assert abs(correlations.mean().item()) < 4 * deviation / len(correlations) ** 0.5
    # With this noise, the softmax draws a prototype with the probability given by its weight.
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5])
    drawn = torch.bincount((kernel_noise(5, 4096, 4) + logits).argmax(dim=1), minlength=4)
    assert stats.chisquare(drawn.numpy(), 4096 * torch.softmax(logits.double(), 0).numpy()).pvalue > 0.01


def test_noise_is_optional_and_seeds_are_equal(randn):
    x, bank = randn(6, 4), randn(9, 4)
    plain = ops.prototype_lookup(x, bank, 0.5)
    assert torch.equal(plain.index, (x @ bank.T).argmax(dim=1))
    torch.testing.assert_close(plain.output, torch.softmax(x @ bank.T / 0.5, dim=-1) @ bank)
    runs = [ops.prototype_lookup(x, bank, 0.5, seed=s) for s in (7, torch.tensor(7), torch.tensor([7]), 8)]
    assert all(torch.equal(run.output, runs[0].output) for run in runs[1:3])
    assert not torch.equal(runs[3].output, runs[0].output) and not torch.equal(plain.output, runs[0].output)


def test_rows_of_the_joined_batch(randn):
    x, bank = randn(6, 4), randn(9, 4)
    whole = ops.prototype_lookup(x, bank, 0.5, seed=1).output
    halves = [ops.prototype_lookup(x[i : i + 3], bank, 0.5, seed=1, first_row=i).output for i in (0, 3)]
    torch.testing.assert_close(torch.cat(halves), whole, rtol=1e-14, atol=1e-14)

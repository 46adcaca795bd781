import numpy as np
import pytest
import torch
from scipy import stats

from prior_fast import extension
from prior_fast.ops.common.philox import gumbel, philox_uint32, uniform, uniform_reference


def signed(value: int) -> int:
    """A 64-bit word as int64 holds it."""
    return value - 2**64 if value >= 2**63 else value


def philox_in_integers(key: int, counter: int) -> list[int]:
    """Philox4x32-10 in Python's integers, from the paper's definition."""
    c = [counter >> (32 * i) & 0xFFFFFFFF for i in range(4)]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p, r = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(r >> 32) ^ c[1] ^ k[0], r & 0xFFFFFFFF, (p >> 32) ^ c[3] ^ k[1], p & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


# The known answers that are published with Random123 (file kat_vectors, philox4x32 with 10 rounds).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(counter, key, words):
    low, high = (signed(counter[i] | counter[i + 1] << 32) for i in (0, 2))
    seed = signed(key[0] | key[1] << 32)
    for known_seed in (seed, torch.tensor(seed)):
        output = philox_uint32(known_seed, torch.tensor(low), high)
        assert tuple(word.item() for word in output) == words


def test_against_integers(rng):
    seed = int(rng.integers(-(2**63), 2**63 - 1))
    counters = rng.integers(0, 2**63 - 1, size=200)
    output = torch.stack(philox_uint32(seed, torch.from_numpy(counters)), dim=1)
    assert output.tolist() == [philox_in_integers(seed % 2**64, int(counter)) for counter in counters]


def test_contract_of_the_noise():
    """Row n, column k of seed s: the first word of key s, counter n * columns + k, by the stated formula."""
    noise = gumbel(-5, 3, 7, first_row=10_000_000_000, dtype=torch.float64)
    for n in range(3):
        for k in range(7):
            word = philox_in_integers(2**64 - 5, (10_000_000_000 + n) * 7 + k)[0]
            u = (word >> 9) * 2.0**-23 + 2.0**-24
            assert noise[n, k].item() == pytest.approx(-np.log(-np.log(u)), rel=1e-14)


def test_float32_noise_is_the_same_numbers():
    u = [uniform(1, (1000,), dtype=dtype) for dtype in (torch.float32, torch.float64)]
    assert u[0].dtype == torch.float32 and torch.equal(u[0].double(), u[1])
    torch.testing.assert_close(gumbel(1, 10, 100).double(), gumbel(1, 10, 100, dtype=torch.float64), rtol=0, atol=4e-6)


def test_rows_of_the_joined_batch():
    whole = gumbel(3, 9, 5)
    assert torch.equal(torch.cat([gumbel(3, 4, 5), gumbel(3, 5, 5, first_row=4)]), whole)
    assert torch.equal(uniform(3, (2, 5), first=5), uniform(3, (3, 5))[1:])


def test_nothing_is_infinite():
    """The least and the greatest number that 23 bits can represent."""
    for word in (0, 0xFFFFFFFF):
        u = torch.tensor((word >> 9) * 2.0**-23 + 2.0**-24)
        assert 0 < u < 1 and (-torch.log(-torch.log(u))).isfinite()


@pytest.mark.parametrize("seed", [0, 1, -(2**63), 2**62 + 12345])
def test_distribution(seed):
    noise = gumbel(seed, 400, 500, dtype=torch.float64).numpy()
    assert stats.kstest(noise.ravel(), stats.gumbel_r.cdf).pvalue > 1e-3
    assert abs(noise.mean() - np.euler_gamma) < 4 * np.pi / np.sqrt(6 * noise.size)
    centred = noise - noise.mean()
    others = {
        "rows": (centred[1:], centred[:-1]),
        "columns": (centred[:, 1:], centred[:, :-1]),
        "seeds": (centred, gumbel(seed + 1, 400, 500, dtype=torch.float64).numpy() - np.euler_gamma),
    }
    for name, (x, y) in others.items():
        assert abs(np.corrcoef(x.ravel(), y.ravel())[0, 1]) < 4 / np.sqrt(x.size), name


def test_reads_nothing_back(no_host_read):
    with no_host_read:
        uniform(torch.tensor(3), (4, 5), first=2)
        philox_uint32(3, torch.arange(4))


def test_passes_opcheck():
    op = torch.ops.prior_fast.gumbel.default
    for rows, dtype in ((3, torch.float32), (0, torch.float64)):
        torch.library.opcheck(op, (torch.tensor(5), rows, 4, 2, dtype))


@pytest.mark.parametrize("first", [0, 7, 2**33])
@pytest.mark.parametrize("seed", [0, 5, 2**62 + 12345, -3])
@pytest.mark.parametrize("count", [0, 1, 2500])
def test_kernels_make_the_same_numbers(count, seed, first):
    from prior_fast.kernels.philox_uniform import philox_uniform

    key = torch.tensor(seed)
    wanted = uniform_reference(key, count, first, torch.float32)
    assert torch.equal(philox_uniform(key, count, first), wanted)
    if extension.unavailable("cpu") is None:
        assert torch.equal(torch.ops.prior_fast.philox_uniform(key, count, first), wanted)
    assert torch.equal(uniform(key, (count,), first), wanted)


def test_uniform_passes_opcheck():
    for count, dtype in ((6, torch.float32), (0, torch.float64)):
        torch.library.opcheck(torch.ops.prior_fast.uniform.default, (torch.tensor(5), count, 2, dtype))

"""The counter-based noise of `prior_fast.ops._philox`, made inside a kernel: the same words, bit for bit."""

import triton
import triton.language as tl


@triton.jit
def philox_word(seed, counter):
    """The first output word of Philox4x32-10, uint32; seed int64, counter int64 of any shape, its low 64 bits."""
    # Typed constants: as plain integers above 2**31 their type would be left to Triton's version.
    multiplier_0 = tl.full([], 0xD2511F53, tl.uint32)
    multiplier_1 = tl.full([], 0xCD9E8D57, tl.uint32)
    key_0 = seed.to(tl.uint32)
    key_1 = (seed >> 32).to(tl.uint32)
    word_0 = counter.to(tl.uint32)
    word_1 = (counter >> 32).to(tl.uint32)
    # The counter's high 64 bits are 0: 2**64 numbers of a seed are enough.
    word_2 = tl.zeros_like(word_0)
    word_3 = tl.zeros_like(word_0)
    # Unrolled: words and keys stay in registers. Products and sums wrap around by design, which the overflow check of
    # Triton's debug mode would report.
    for _ in tl.static_range(10):
        high_0, low_0 = tl.umulhi(word_0, multiplier_0), tl.mul(word_0, multiplier_0, sanitize_overflow=False)
        high_1, low_1 = tl.umulhi(word_2, multiplier_1), tl.mul(word_2, multiplier_1, sanitize_overflow=False)
        word_0, word_1 = high_1 ^ word_1 ^ key_0, low_1
        word_2, word_3 = high_0 ^ word_3 ^ key_1, low_0
        key_0 = tl.add(key_0, tl.full([], 0x9E3779B9, tl.uint32), sanitize_overflow=False)
        key_1 = tl.add(key_1, tl.full([], 0xBB67AE85, tl.uint32), sanitize_overflow=False)
    return word_0


@triton.jit
def gumbel(seed, counter):
    """Standard Gumbel noise, float32, of the shape of `counter`."""
    # 23 bits and a half step: exact in float32, never 0 and never 1, so that both logarithms are finite.
    uniform = (philox_word(seed, counter) >> 9).to(tl.float32) * (2.0**-23) + (2.0**-24)
    return -tl.log(-tl.log(uniform))

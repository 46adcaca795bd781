// prior_fast::philox_uniform on the CPU: counter-based noise, Philox4x32-10 (Salmon et al., SC 2011).
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace prior_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Numbers that are worth waking a thread for.
constexpr int64_t kGrain = 8192;
constexpr int kRounds = 10;

// The first of the four output words for a counter whose high words are zero.
inline uint32_t philox_word(uint64_t key, uint64_t counter) {
  uint32_t key_0 = static_cast<uint32_t>(key), key_1 = static_cast<uint32_t>(key >> 32);
  uint32_t word_0 = static_cast<uint32_t>(counter), word_1 = static_cast<uint32_t>(counter >> 32);
  uint32_t word_2 = 0, word_3 = 0;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product_0 = uint64_t{0xD2511F53} * word_0, product_1 = uint64_t{0xCD9E8D57} * word_2;
    word_0 = static_cast<uint32_t>(product_1 >> 32) ^ word_1 ^ key_0;
    word_1 = static_cast<uint32_t>(product_1);
    word_2 = static_cast<uint32_t>(product_0 >> 32) ^ word_3 ^ key_1;
    word_3 = static_cast<uint32_t>(product_0);
    key_0 += 0x9E3779B9;
    key_1 += 0xBB67AE85;
  }
  return word_0;
}

// seed [] int64 -> float32 [count], multiples of 2^-24 in (0, 1); number i is that of counter first + i.
Tensor philox_uniform(const Tensor& seed, int64_t count, int64_t first) {
  Tensor out = torch::stable::new_empty(seed, {count}, ScalarType::Float);
  const uint64_t key = static_cast<uint64_t>(*static_cast<const int64_t*>(seed.const_data_ptr()));
  float* numbers = static_cast<float*>(out.mutable_data_ptr());
  torch::stable::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t word = philox_word(key, static_cast<uint64_t>(first + i));
      numbers[i] = static_cast<float>(word >> 9) * 0x1p-23f + 0x1p-24f;
    }
  });
  return out;
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CPU, library) {
  library.impl("philox_uniform", TORCH_BOX(&prior_fast::philox_uniform));
}

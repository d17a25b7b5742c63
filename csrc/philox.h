// Philox4x32-10, the counter-based generator of every mask.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

namespace dropkit {

inline constexpr int kRounds = 10;
inline constexpr std::uint32_t kM0 = 0xD2511F53, kM1 = 0xCD9E8D57;
inline constexpr std::uint32_t kW0 = 0x9E3779B9, kW1 = 0xBB67AE85;

using Block = std::array<std::uint32_t, 4>;

// The round keys, the first block and the threshold of one call, computed once for all inner loops.
// Round keys are in 64-bit lanes with high halves of zero, as the vector kernels need them.
struct Schedule {
  std::uint64_t k0[kRounds], k1[kRounds];
  std::uint64_t first;  // the block of mask index 0; blocks are counted modulo 2**64
  std::uint32_t threshold;

  Schedule(const std::uint64_t key, const std::uint64_t first_block, const std::uint32_t t)
      : first(first_block), threshold(t) {
    auto low = static_cast<std::uint32_t>(key), high = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < kRounds; ++round, low += kW0, high += kW1) {
      k0[round] = low;
      k1[round] = high;
    }
  }
};

inline Block philox(Block c, const Schedule& keys) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{kM0} * c[0], p1 = std::uint64_t{kM1} * c[2];
    c = {static_cast<std::uint32_t>((p1 >> 32) ^ c[1] ^ keys.k0[round]), static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>((p0 >> 32) ^ c[3] ^ keys.k1[round]), static_cast<std::uint32_t>(p0)};
  }
  return c;
}

// The four random words of a block.
inline Block mask_words(const std::uint64_t block, const Schedule& keys) {
  return philox({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0, 0}, keys);
}

inline bool kept(const std::uint64_t index, const Schedule& keys) {
  return mask_words(keys.first + index / 4, keys)[index % 4] >= keys.threshold;
}

}  // namespace dropkit

// What one instruction set offers to the driver: coins, and rows of elements that obey them.
#pragma once

#include <cstdint>

#include "philox.h"

namespace dropkit {

enum class Dtype { float32, float64, bfloat16, float16 };
inline constexpr int kDtypes = 4;
inline constexpr int kBytes[kDtypes] = {4, 8, 2, 2};

// A kept element becomes x * scale + shift, a dropped one becomes fill; each is rounded once to the arithmetic type.
struct Values {
  double scale, shift, fill;
};

// Strides count elements. Bit i of bits[i / 64] is set where element i is kept.
struct Rows {
  // Consecutive elements that use consecutive coins, from `coin` on.
  void (*fused)(void* dst, const void* src, std::int64_t n, std::uint64_t coin, const Schedule&, const Values&);
  // The same, added to the elements at `add`: rounded as two calls would round, once each.
  void (*added)(void* dst, const void* src, const void* add, std::int64_t n, std::uint64_t coin, const Schedule&,
                const Values&);
  void (*masked)(void* dst, std::int64_t dst_stride, const void* src, std::int64_t src_stride, std::int64_t n,
                 const std::uint64_t* bits, const Values&);
  void (*fill)(void* dst, std::int64_t dst_stride, std::int64_t n, const Values&);
};

struct Level {
  const char* name;
  bool (*runs_here)();
  // Keep bits of n consecutive coins; bits past n are undefined.
  void (*bits)(std::uint64_t* out, std::int64_t n, std::uint64_t coin, const Schedule&);
  // Rows by dtype; the second of each pair adds the shift. Plain dropout must not: -0 + 0 is +0.
  Rows rows[kDtypes][2];
};

extern const Level scalar_level;
#if defined(__x86_64__)
extern const Level avx2_level, avx512_level;
#elif defined(__aarch64__)
extern const Level neon_level;
#endif

}  // namespace dropkit

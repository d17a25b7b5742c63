// What one instruction set gives the drivers: keep bits, and dropout of rows of elements.
#pragma once

#include <array>
#include <cstdint>

#include "philox.h"

namespace dropkit {

enum class Dtype { float32, float64, bfloat16, float16 };
inline constexpr int kDtypes = 4;
inline constexpr int kBytes[kDtypes] = {4, 8, 2, 2};

// A kept element becomes x * scale + shift, a dropped one becomes fill; each is rounded once to the arithmetic type.
struct Affine {
  double scale, shift, fill;
};

enum class Distribution { normal, uniform };  // in the order of the codes in kernels/numbers.py

// An element becomes x * (1 + factor * n) + term * n, n the number of its mask element; roundings as above.
struct Noise {
  Distribution distribution;
  double factor, term;
};

// Strides count elements. Bit i of bits[i / 64] is set where element i is kept.
struct Rows {
  // Consecutive elements with consecutive mask indices, from `index` on.
  void (*fused)(void* dst, const void* src, std::int64_t n, std::uint64_t index, const Schedule&, const Affine&);
  // The same, plus the elements at `add`; rounds twice, as two calls would.
  void (*added)(void* dst, const void* src, const void* add, std::int64_t n, std::uint64_t index, const Schedule&,
                const Affine&);
  void (*masked)(void* dst, std::int64_t dst_stride, const void* src, std::int64_t src_stride, std::int64_t n,
                 const std::uint64_t* bits, const Affine&);
  void (*fill)(void* dst, std::int64_t dst_stride, std::int64_t n, const Affine&);
  void (*noisy)(void* dst, std::int64_t dst_stride, const void* src, std::int64_t src_stride, std::int64_t n,
                const std::uint32_t* words, const Noise&);
};

// Words are computed 64 at a time, from the beginning of a Philox block.
inline constexpr std::int64_t kSpareWords = 3 + 63;

struct Isa {
  const char* name;
  bool (*runs_here)();
  // Keep bits of n consecutive mask elements from `index` on; bits past n are undefined.
  void (*bits)(std::uint64_t* out, std::int64_t n, std::uint64_t index, const Schedule&);
  // Words of n consecutive mask elements from `index` on: where they begin in `out`, which has room for n + kSpareWords.
  const std::uint32_t* (*words)(std::uint32_t* out, std::int64_t n, std::uint64_t index, const Schedule&);
  // Rows by dtype; the second of each pair adds the shift. Plain dropout must not: -0 + 0 is +0.
  Rows rows[kDtypes][2];
};

// The instruction sets of this build, best first.
extern const Isa scalar_isa;
#if defined(__x86_64__) || defined(_M_X64)
extern const Isa avx2_isa, avx512_isa;
inline constexpr std::array<const Isa*, 3> isas{&avx512_isa, &avx2_isa, &scalar_isa};
#elif defined(__aarch64__)
extern const Isa neon_isa;
inline constexpr std::array<const Isa*, 2> isas{&neon_isa, &scalar_isa};
#else
inline constexpr std::array<const Isa*, 1> isas{&scalar_isa};
#endif

}  // namespace dropkit

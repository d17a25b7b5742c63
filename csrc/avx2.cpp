// AVX2: 4 Philox blocks in the 64-bit lanes of a register, 8 elements at a time.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "isa.h"
#include "philox.h"
#include "platform.h"

// From here on the compiler may use AVX2; what platform.h and the standard headers define must not.
#if defined(__clang__)
#pragma clang attribute push([[gnu::target("avx2,f16c")]], apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx2,f16c")
#endif
#include "loops.h"

namespace dropkit {
namespace {

inline __m256i lanes(const std::uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }

inline __m256i xor3(const __m256i a, const __m256i b, const __m256i c) {
  return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}

// Only the low half of a lane counts: the multiply reads nothing else, so the high halves may hold anything.
struct State {
  __m256i c0, c1, c2, c3;
};

inline State philox_round(const State& s, const std::uint64_t k0, const std::uint64_t k1) {
  const __m256i p0 = _mm256_mul_epu32(s.c0, lanes(kM0)), p1 = _mm256_mul_epu32(s.c2, lanes(kM1));
  return {xor3(_mm256_srli_epi64(p1, 32), s.c1, lanes(k0)), p1, xor3(_mm256_srli_epi64(p0, 32), s.c3, lanes(k1)), p0};
}

// The last round for two of the four words: high(p) ^ c ^ k in the low half of a lane, low(p) in the high half.
inline __m256i word_pair(const __m256i p, const __m256i c, const std::uint64_t k) {
  const __m256i low_halves = lanes(0xFFFFFFFF);
  return _mm256_xor_si256(_mm256_shuffle_epi32(p, 0xB1), _mm256_and_si256(_mm256_xor_si256(c, lanes(k)), low_halves));
}

inline unsigned keep8(const __m256i words, const __m256i t) {
  const __m256i at_least = _mm256_cmpeq_epi32(_mm256_max_epu32(words, t), words);
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(at_least)));
}

// The words of 16 mask elements, in their order.
struct Words16 {
  __m256i low, high;
};

inline Words16 words16(const std::uint64_t block, const Schedule& keys) {
  // In this order of blocks two unpacks bring the words into the order of the mask.
  const __m256i counter = _mm256_add_epi64(lanes(block), _mm256_setr_epi64x(0, 2, 1, 3));
  State s{counter, _mm256_srli_epi64(counter, 32), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int round = 0; round < kRounds - 1; ++round) s = philox_round(s, keys.k0[round], keys.k1[round]);
  const __m256i w01 = word_pair(_mm256_mul_epu32(s.c2, lanes(kM1)), s.c1, keys.k0[kRounds - 1]);
  const __m256i w23 = word_pair(_mm256_mul_epu32(s.c0, lanes(kM0)), s.c3, keys.k1[kRounds - 1]);
  return {_mm256_unpacklo_epi64(w01, w23), _mm256_unpackhi_epi64(w01, w23)};
}

// Keep bits of the 16 mask elements from a block on.
inline std::uint64_t keep16(const std::uint64_t block, const Schedule& keys) {
  const Words16 words = words16(block, keys);
  const __m256i t = _mm256_set1_epi32(static_cast<int>(keys.threshold));
  return keep8(words.low, t) | keep8(words.high, t) << 8;
}

inline __m256 load8(const float* const src) { return _mm256_loadu_ps(src); }
inline __m256 load8(const Bfloat16* const src) {
  const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
}
inline __m256 load8(const Float16* const src) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src)));
}

inline void store8(float* const dst, const __m256 y) { _mm256_storeu_ps(dst, y); }
inline void store8(Bfloat16* const dst, const __m256 y) {
  const __m256i bits = _mm256_castps_si256(y);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(y, y, _CMP_UNORD_Q));
  const __m256i wide = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7FC0), nan);
  const __m128i narrow = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), narrow);
}
inline void store8(Float16* const dst, const __m256 y) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(dst), _mm256_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT));
}

struct Avx2 {
  static std::uint64_t keep64(const std::uint64_t block, const Schedule& keys) {
    return keep16(block, keys) | keep16(block + 4, keys) << 16 | keep16(block + 8, keys) << 32 |
           keep16(block + 12, keys) << 48;
  }

  static void words64(std::uint32_t* const out, const std::uint64_t block, const Schedule& keys) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      const Words16 words = words16(block + 4 * static_cast<std::uint64_t>(quarter), keys);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16 * quarter), words.low);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + 16 * quarter + 8), words.high);
    }
  }

  template <class T>
  static void widen64(float* const out, const T* const src) {
    for (int i = 0; i < 64; i += 8) _mm256_storeu_ps(out + i, load8(src + i));
  }

  template <class T>
  static void narrow64(T* const dst, const float* const src) {
    for (int i = 0; i < 64; i += 8) store8(dst + i, _mm256_loadu_ps(src + i));
  }

  template <class T, bool shifted>
  static void apply64(T* const dst, const T* const src, const std::uint64_t keep, const Scaled<T, shifted>& affine) {
    const __m256 scale = _mm256_set1_ps(affine.scale);
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    for (int i = 0; i < 64; i += 8) {
      const __m256i byte = _mm256_set1_epi32(static_cast<int>(keep >> i & 0xFF));
      const __m256 mask = _mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_and_si256(byte, bit), bit));
      __m256 y = _mm256_mul_ps(load8(src + i), scale);
      if constexpr (shifted) y = _mm256_add_ps(y, _mm256_set1_ps(affine.shift));
      y = _mm256_blendv_ps(_mm256_set1_ps(affine.fill), y, mask);
      store8(dst + i, y);
    }
  }

  template <class T>
  static void add64(T* const dst, const T* const a, const T* const b) {
    for (int i = 0; i < 64; i += 8) store8(dst + i, _mm256_add_ps(load8(a + i), load8(b + i)));
  }

  static void add64(double* const dst, const double* const a, const double* const b) {
    for (int i = 0; i < 64; i += 4) _mm256_storeu_pd(dst + i, _mm256_add_pd(_mm256_loadu_pd(a + i), _mm256_loadu_pd(b + i)));
  }

  template <bool shifted>
  static void apply64(double* const dst, const double* const src, const std::uint64_t keep,
                      const Scaled<double, shifted>& affine) {
    const __m256d scale = _mm256_set1_pd(affine.scale);
    const __m256i bit = _mm256_setr_epi64x(1, 2, 4, 8);
    for (int i = 0; i < 64; i += 4) {
      const __m256d mask = _mm256_castsi256_pd(_mm256_cmpeq_epi64(_mm256_and_si256(lanes(keep >> i), bit), bit));
      __m256d y = _mm256_mul_pd(_mm256_loadu_pd(src + i), scale);
      if constexpr (shifted) y = _mm256_add_pd(y, _mm256_set1_pd(affine.shift));
      y = _mm256_blendv_pd(_mm256_set1_pd(affine.fill), y, mask);
      _mm256_storeu_pd(dst + i, y);
    }
  }
};

}  // namespace
}  // namespace dropkit
#if defined(__clang__)
#pragma clang attribute pop
#endif

namespace dropkit {
constexpr Isa avx2_isa = make_isa<Avx2>("avx2", has_avx2);
}
#endif

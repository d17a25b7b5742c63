// AVX-512: 8 Philox blocks in the 64-bit lanes of a register, 16 elements at a time.
#if defined(__x86_64__) || defined(_M_X64)
// GCC 12 warns of its own header: values that no instruction reads are left uninitialized there on purpose (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "isa.h"
#include "philox.h"
#include "platform.h"

// From here on the compiler may use AVX-512; what platform.h and the standard headers define must not.
#if defined(__clang__)
#pragma clang attribute push([[gnu::target("avx512f,avx512bw,avx512dq,avx512vl")]], apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif
#include "loops.h"

namespace dropkit {
namespace {

inline __m512i xor3(const __m512i a, const __m512i b, const __m512i c) {
  return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

// Only the low half of a lane counts: the multiply reads nothing else, so the high halves may hold anything.
struct State {
  __m512i c0, c1, c2, c3;
};

inline State philox_round(const State& s, const std::uint64_t k0, const std::uint64_t k1) {
  const __m512i p0 = _mm512_mul_epu32(s.c0, _mm512_set1_epi64(kM0)), p1 = _mm512_mul_epu32(s.c2, _mm512_set1_epi64(kM1));
  return {xor3(_mm512_srli_epi64(p1, 32), s.c1, _mm512_set1_epi64(static_cast<long long>(k0))), p1,
          xor3(_mm512_srli_epi64(p0, 32), s.c3, _mm512_set1_epi64(static_cast<long long>(k1))), p0};
}

// The last round for two of the four words: high(p) ^ c ^ k in the low half of a lane, low(p) in the high half.
inline __m512i word_pair(const __m512i p, const __m512i c, const std::uint64_t k) {
  return _mm512_mask_ternarylogic_epi32(_mm512_ror_epi64(p, 32), 0x5555, c, _mm512_set1_epi64(static_cast<long long>(k)),
                                        0x96);
}

// The words of 32 mask elements, in their order.
struct Words32 {
  __m512i low, high;
};

inline Words32 words32(const std::uint64_t block, const Schedule& keys) {
  // In this order of blocks two unpacks bring the words into the order of the mask.
  const __m512i counter =
      _mm512_add_epi64(_mm512_set1_epi64(static_cast<long long>(block)), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
  State s{counter, _mm512_srli_epi64(counter, 32), _mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int round = 0; round < kRounds - 1; ++round) s = philox_round(s, keys.k0[round], keys.k1[round]);
  const __m512i w01 = word_pair(_mm512_mul_epu32(s.c2, _mm512_set1_epi64(kM1)), s.c1, keys.k0[kRounds - 1]);
  const __m512i w23 = word_pair(_mm512_mul_epu32(s.c0, _mm512_set1_epi64(kM0)), s.c3, keys.k1[kRounds - 1]);
  return {_mm512_unpacklo_epi64(w01, w23), _mm512_unpackhi_epi64(w01, w23)};
}

// Keep bits of the 32 mask elements from a block on.
inline std::uint64_t keep32(const std::uint64_t block, const Schedule& keys) {
  const Words32 words = words32(block, keys);
  const __m512i t = _mm512_set1_epi32(static_cast<int>(keys.threshold));
  const std::uint64_t low = _mm512_cmpge_epu32_mask(words.low, t), high = _mm512_cmpge_epu32_mask(words.high, t);
  return low | high << 16;
}

inline __m512 load16(const float* const src) { return _mm512_loadu_ps(src); }
inline __m512 load16(const Bfloat16* const src) {
  const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
}
inline __m512 load16(const Float16* const src) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(src)));
}

inline void store16(float* const dst, const __m512 y) { _mm512_storeu_ps(dst, y); }
inline void store16(Bfloat16* const dst, const __m512 y) {
  const __m512i bits = _mm512_castps_si512(y);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd), 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(y, y, _CMP_UNORD_Q);
  const __m512i narrow = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7FC0));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), _mm512_cvtepi32_epi16(narrow));
}
inline void store16(Float16* const dst, const __m512 y) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst), _mm512_cvtps_ph(y, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

struct Avx512 {
  static std::uint64_t keep64(const std::uint64_t block, const Schedule& keys) {
    return keep32(block, keys) | keep32(block + 8, keys) << 32;
  }

  static void words64(std::uint32_t* const out, const std::uint64_t block, const Schedule& keys) {
    for (int half = 0; half < 2; ++half) {
      const Words32 words = words32(block + 8 * static_cast<std::uint64_t>(half), keys);
      _mm512_storeu_si512(out + 32 * half, words.low);
      _mm512_storeu_si512(out + 32 * half + 16, words.high);
    }
  }

  template <class T>
  static void widen64(float* const out, const T* const src) {
    for (int i = 0; i < 64; i += 16) _mm512_storeu_ps(out + i, load16(src + i));
  }

  template <class T>
  static void narrow64(T* const dst, const float* const src) {
    for (int i = 0; i < 64; i += 16) store16(dst + i, _mm512_loadu_ps(src + i));
  }

  template <class T, bool shifted>
  static void apply64(T* const dst, const T* const src, const std::uint64_t keep, const Scaled<T, shifted>& affine) {
    const __m512 scale = _mm512_set1_ps(affine.scale);
    for (int i = 0; i < 64; i += 16) {
      const auto mask = static_cast<__mmask16>(keep >> i);
      const __m512 x = load16(src + i);
      if constexpr (shifted) {
        const __m512 y = _mm512_add_ps(_mm512_mul_ps(x, scale), _mm512_set1_ps(affine.shift));
        store16(dst + i, _mm512_mask_mov_ps(_mm512_set1_ps(affine.fill), mask, y));
      } else {
        store16(dst + i, _mm512_mask_mul_ps(_mm512_set1_ps(affine.fill), mask, x, scale));
      }
    }
  }

  template <class T>
  static void add64(T* const dst, const T* const a, const T* const b) {
    for (int i = 0; i < 64; i += 16) store16(dst + i, _mm512_add_ps(load16(a + i), load16(b + i)));
  }

  static void add64(double* const dst, const double* const a, const double* const b) {
    for (int i = 0; i < 64; i += 8) _mm512_storeu_pd(dst + i, _mm512_add_pd(_mm512_loadu_pd(a + i), _mm512_loadu_pd(b + i)));
  }

  template <bool shifted>
  static void apply64(double* const dst, const double* const src, const std::uint64_t keep,
                      const Scaled<double, shifted>& affine) {
    const __m512d scale = _mm512_set1_pd(affine.scale);
    for (int i = 0; i < 64; i += 8) {
      const auto mask = static_cast<__mmask8>(keep >> i);
      const __m512d x = _mm512_loadu_pd(src + i);
      if constexpr (shifted) {
        const __m512d y = _mm512_add_pd(_mm512_mul_pd(x, scale), _mm512_set1_pd(affine.shift));
        _mm512_storeu_pd(dst + i, _mm512_mask_mov_pd(_mm512_set1_pd(affine.fill), mask, y));
      } else {
        _mm512_storeu_pd(dst + i, _mm512_mask_mul_pd(_mm512_set1_pd(affine.fill), mask, x, scale));
      }
    }
  }
};

}  // namespace
}  // namespace dropkit
#if defined(__clang__)
#pragma clang attribute pop
#endif

namespace dropkit {
constexpr Isa avx512_isa = make_isa<Avx512>("avx512", has_avx512);
}
#endif

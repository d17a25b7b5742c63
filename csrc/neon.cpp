// NEON (64-bit Arm): 4 Philox blocks in the 32-bit lanes of four registers, 4 elements at a time.
#if defined(__aarch64__)
#include <arm_neon.h>

#include "loops.h"

namespace dropkit {
namespace {

struct State {
  uint32x4_t c0, c1, c2, c3;
};

struct Product {
  uint32x4_t low, high;
};

inline Product multiply(const uint32x4_t a, const std::uint32_t m) {
  const uint32x4_t first = vreinterpretq_u32_u64(vmull_n_u32(vget_low_u32(a), m));
  const uint32x4_t second = vreinterpretq_u32_u64(vmull_high_n_u32(a, m));
  return {vuzp1q_u32(first, second), vuzp2q_u32(first, second)};
}

inline uint32x4_t xor3(const uint32x4_t a, const uint32x4_t b, const std::uint64_t c) {
  return veorq_u32(veorq_u32(a, b), vdupq_n_u32(static_cast<std::uint32_t>(c)));
}

// The words of 4 blocks: lane b of each register belongs to block b.
inline State words16(const std::uint64_t block, const Schedule& keys) {
  const std::uint64_t counters[4] = {block, block + 1, block + 2, block + 3};
  const uint32x4_t first = vreinterpretq_u32_u64(vld1q_u64(counters)), second = vreinterpretq_u32_u64(vld1q_u64(counters + 2));
  State s{vuzp1q_u32(first, second), vuzp2q_u32(first, second), vdupq_n_u32(0), vdupq_n_u32(0)};
  for (int round = 0; round < kRounds; ++round) {
    const Product p0 = multiply(s.c0, kM0), p1 = multiply(s.c2, kM1);
    s = {xor3(p1.high, s.c1, keys.k0[round]), p1.low, xor3(p0.high, s.c3, keys.k1[round]), p0.low};
  }
  return s;
}

// Keep bits of the 16 mask elements from a block on: lane b of the sum holds the 4 bits of block b in their place.
inline std::uint64_t keep16(const std::uint64_t block, const Schedule& keys) {
  const State s = words16(block, keys);
  const uint32x4_t t = vdupq_n_u32(keys.threshold);
  const uint32x4_t bit0 = vandq_u32(vcgeq_u32(s.c0, t), vdupq_n_u32(1)), bit1 = vandq_u32(vcgeq_u32(s.c1, t), vdupq_n_u32(2));
  const uint32x4_t bit2 = vandq_u32(vcgeq_u32(s.c2, t), vdupq_n_u32(4)), bit3 = vandq_u32(vcgeq_u32(s.c3, t), vdupq_n_u32(8));
  const std::int32_t places[4] = {0, 4, 8, 12};
  const uint32x4_t nibbles = vorrq_u32(vorrq_u32(bit0, bit1), vorrq_u32(bit2, bit3));
  return vaddvq_u32(vshlq_u32(nibbles, vld1q_s32(places)));
}

inline float32x4_t load4(const float* const src) { return vld1q_f32(src); }
inline float32x4_t load4(const Bfloat16* const src) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&src->bits), 16));
}
inline float32x4_t load4(const Float16* const src) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&src->bits))); }

inline void store4(float* const dst, const float32x4_t y) { vst1q_f32(dst, y); }
inline void store4(Bfloat16* const dst, const float32x4_t y) {
  const uint32x4_t bits = vreinterpretq_u32_f32(y);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7FFF)), odd);
  const uint32x4_t number = vceqq_f32(y, y);
  vst1_u16(&dst->bits, vshrn_n_u32(vbslq_u32(number, rounded, vdupq_n_u32(0x7FC00000)), 16));
}
inline void store4(Float16* const dst, const float32x4_t y) { vst1_u16(&dst->bits, vreinterpret_u16_f16(vcvt_f16_f32(y))); }

struct Neon {
  static std::uint64_t keep64(const std::uint64_t block, const Schedule& keys) {
    return keep16(block, keys) | keep16(block + 4, keys) << 16 | keep16(block + 8, keys) << 32 |
           keep16(block + 12, keys) << 48;
  }

  static void words64(std::uint32_t* const out, const std::uint64_t block, const Schedule& keys) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      const State s = words16(block + 4 * static_cast<std::uint64_t>(quarter), keys);
      const uint32x4x4_t words{{s.c0, s.c1, s.c2, s.c3}};
      vst4q_u32(out + 16 * quarter, words);
    }
  }

  template <class T>
  static void widen64(float* const out, const T* const src) {
    for (int i = 0; i < 64; i += 4) vst1q_f32(out + i, load4(src + i));
  }

  template <class T>
  static void narrow64(T* const dst, const float* const src) {
    for (int i = 0; i < 64; i += 4) store4(dst + i, vld1q_f32(src + i));
  }

  template <class T, bool shifted>
  static void apply64(T* const dst, const T* const src, const std::uint64_t keep, const Scaled<T, shifted>& affine) {
    const std::uint32_t places[4] = {1, 2, 4, 8};
    const uint32x4_t bit = vld1q_u32(places);
    const float32x4_t dropped = vdupq_n_f32(affine.fill);
    for (int i = 0; i < 64; i += 4) {
      float32x4_t y = vmulq_n_f32(load4(src + i), affine.scale);
      if constexpr (shifted) y = vaddq_f32(y, vdupq_n_f32(affine.shift));
      store4(dst + i, vbslq_f32(vtstq_u32(vdupq_n_u32(static_cast<std::uint32_t>(keep >> i)), bit), y, dropped));
    }
  }

  template <class T>
  static void add64(T* const dst, const T* const a, const T* const b) {
    for (int i = 0; i < 64; i += 4) store4(dst + i, vaddq_f32(load4(a + i), load4(b + i)));
  }

  static void add64(double* const dst, const double* const a, const double* const b) {
    for (int i = 0; i < 64; i += 2) vst1q_f64(dst + i, vaddq_f64(vld1q_f64(a + i), vld1q_f64(b + i)));
  }

  template <bool shifted>
  static void apply64(double* const dst, const double* const src, const std::uint64_t keep,
                      const Scaled<double, shifted>& affine) {
    const std::uint64_t places[2] = {1, 2};
    const uint64x2_t bit = vld1q_u64(places);
    const float64x2_t dropped = vdupq_n_f64(affine.fill);
    for (int i = 0; i < 64; i += 2) {
      float64x2_t y = vmulq_n_f64(vld1q_f64(src + i), affine.scale);
      if constexpr (shifted) y = vaddq_f64(y, vdupq_n_f64(affine.shift));
      vst1q_f64(dst + i, vbslq_f64(vtstq_u64(vdupq_n_u64(keep >> i), bit), y, dropped));
    }
  }
};

}  // namespace

// Every 64-bit Arm processor has NEON.
constexpr Isa neon_isa = make_isa<Neon>("neon", [] { return true; });

}  // namespace dropkit
#endif

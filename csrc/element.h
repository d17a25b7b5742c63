// Element types and their arithmetic: float32 for the narrow types and float32, float64 for float64.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "isa.h"

namespace dropkit {

struct Bfloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

namespace {

inline std::uint32_t float_bits(const float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

inline float bits_float(const std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float widen(const float x) { return x; }
inline double widen(const double x) { return x; }
inline float widen(const Bfloat16 x) { return bits_float(std::uint32_t{x.bits} << 16); }

inline float widen(const Float16 x) {
  const std::uint32_t sign = std::uint32_t{x.bits & 0x8000u} << 16, rest = x.bits & 0x7FFFu;
  // Below 2**-14 a half is a multiple of 2**-24.
  if (rest < 0x0400) return bits_float(sign | float_bits(static_cast<float>(rest) * 0x1p-24f));
  const std::uint32_t rebias = rest < 0x7C00 ? 112u << 23 : 224u << 23;
  return bits_float(sign | ((rest << 13) + rebias));
}

inline void narrow(float& out, const float x) { out = x; }
inline void narrow(double& out, const double x) { out = x; }

inline void narrow(Bfloat16& out, const float x) {
  const std::uint32_t bits = float_bits(x);
  out.bits = x != x ? 0x7FC0 : static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline void narrow(Float16& out, const float x) {
  const std::uint32_t bits = float_bits(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7FFFFFFF;
  std::uint32_t half;
  if (rest > 0x7F800000) {
    half = 0x7E00 | (rest >> 13 & 0x03FF);  // quiet, its payload cut, as the conversion instructions do
  } else if (rest >= 0x477FF000) {  // from halfway past the largest half on: infinity
    half = 0x7C00;
  } else if (rest < 0x38800000) {  // subnormal: adding 0.5 lets the float adder round at 2**-24
    half = float_bits(bits_float(rest) + 0.5f) - float_bits(0.5f);
  } else {
    half = (rest - (112u << 23) + 0x0FFF + (rest >> 13 & 1)) >> 13;
  }
  out.bits = static_cast<std::uint16_t>(sign | half);
}

template <class T>
using Arithmetic = decltype(widen(T{}));

// The three numbers of a call, rounded once to the arithmetic type.
template <class T, bool shifted>
struct Scaled {
  Arithmetic<T> scale, shift, fill;

  explicit Scaled(const Affine& affine)
      : scale(static_cast<Arithmetic<T>>(affine.scale)),
        shift(static_cast<Arithmetic<T>>(affine.shift)),
        fill(static_cast<Arithmetic<T>>(affine.fill)) {}

  T kept(const T x) const {
    Arithmetic<T> y = widen(x) * scale;
    if constexpr (shifted) y = y + shift;
    T out;
    narrow(out, y);
    return out;
  }

  T dropped() const {
    T out;
    narrow(out, fill);
    return out;
  }
};

}  // namespace
}  // namespace dropkit

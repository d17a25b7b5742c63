// The number of a mask element, and what an element becomes by it: kernels/numbers.py, the same operations in the same order.
//
// Plain loops over 64 elements, which the compiler turns into vector instructions of the target that it is included under.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "element.h"
#include "isa.h"

namespace dropkit {
namespace {

constexpr float kCentre[] = {-1.64806284e-08F, -1.22609665e-08F, 1.28858164e-06F, -5.33252842e-06F, -3.60828853e-05F,
                             0.000552890531F,  -0.00236476725F,  -0.0162311569F,  0.683433771F,     4.59207058F};
constexpr float kTail[] = {1.35494393e-12F, -2.45251614e-11F, 6.18601559e-11F, 1.41874368e-09F,
                           -2.5334618e-08F, 5.48377727e-07F,  -1.21962385e-05F, 0.000274454505F,
                           -0.00745716458F, 0.39536801F,      9.73501968F};
constexpr float kLog[] = {-0.160796329F, 0.174691871F, -0.162667811F, 0.197261259F,
                          -0.250175983F, 0.333417475F, -0.499997526F, 0.999999344F};
constexpr float kLn2 = 0.693147182F;
// From this logarithm on the polynomial of the tails serves, for one number in 500.
constexpr float kFar = 6.0F;

template <std::size_t n>
float polynomial(const float x, const float (&coefficients)[n]) {
  float value = coefficients[0];
  for (std::size_t i = 1; i < n; ++i) value = value * x + coefficients[i];
  return value;
}

// Natural logarithm of positive numbers: that of a fraction in [2/3, 4/3), and a power of 2.
inline float logarithm(const float z) {
  const auto bits = static_cast<std::int32_t>(float_bits(z));
  const std::int32_t exponent = (bits - 0x3F2AAAAB) >> 23;
  const float x = bits_float(static_cast<std::uint32_t>(bits) - (static_cast<std::uint32_t>(exponent) << 23)) - 1.0F;
  return static_cast<float>(exponent) * kLn2 + polynomial(x, kLog) * x;
}

inline void numbers64(float* const out, const std::uint32_t* const words, const Distribution distribution) {
  if (distribution == Distribution::uniform) {
    for (int i = 0; i < 64; ++i) out[i] = (static_cast<float>(static_cast<std::int32_t>(words[i] >> 9)) + 0.5F) * 0x1p-23F;
    return;
  }
  alignas(64) float log[64], centre[64];
  std::int32_t largest = 0;  // of the logarithms' bits, whose order is that of the numbers where these are positive
  for (int i = 0; i < 64; ++i) {
    const std::uint32_t is_lower = (words[i] >> 31) - 1;  // all bits, or none
    const auto from_centre = static_cast<std::int32_t>((words[i] ^ is_lower) & 0x7FFFFFFF);
    const float size = (static_cast<float>(from_centre) + 0.5F) * 0x1p-32F;
    const float tail = static_cast<float>(from_centre ^ 0x7FFFFFFF) + 0.5F;
    log[i] = -logarithm((tail * 0x1p-30F) * (1.0F - tail * 0x1p-32F));
    largest = std::max(largest, static_cast<std::int32_t>(float_bits(log[i])));
    centre[i] = bits_float(float_bits(size) ^ (is_lower & 0x80000000));
    out[i] = centre[i] * polynomial(log[i] - 3.0F, kCentre);
  }
  if (largest < static_cast<std::int32_t>(float_bits(kFar))) return;
  for (int i = 0; i < 64; ++i) {
    if (log[i] >= kFar) out[i] = centre[i] * polynomial(log[i] - 13.0F, kTail);
  }
}

inline void numbers64(double* const out, const std::uint32_t* const words, const Distribution distribution) {
  if (distribution == Distribution::uniform) {
    for (int i = 0; i < 64; ++i) out[i] = (static_cast<double>(words[i]) + 0.5) * 0x1p-32;
    return;
  }
  alignas(64) float narrow[64];
  numbers64(narrow, words, distribution);
  for (int i = 0; i < 64; ++i) out[i] = static_cast<double>(narrow[i]);
}

template <class Simd, class T>
void noise64(T* const dst, const T* const src, const std::uint32_t* const words, const Noise& noise) {
  using Number = Arithmetic<T>;
  constexpr bool is_wide = std::is_same_v<T, Number>;
  const auto factor = static_cast<Number>(noise.factor), term = static_cast<Number>(noise.term);
  alignas(64) Number number[64], x[64];
  numbers64(number, words, noise.distribution);
  if constexpr (is_wide) {
    std::copy_n(src, 64, x);
  } else {
    Simd::widen64(x, src);
  }
  for (int i = 0; i < 64; ++i) x[i] = x[i] * (number[i] * factor + 1) + number[i] * term;
  if constexpr (is_wide) {
    std::copy_n(x, 64, dst);
  } else {
    Simd::narrow64(dst, x);
  }
}

}  // namespace
}  // namespace dropkit

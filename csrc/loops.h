// The loops around an instruction set's two primitives: 64 coins at a time, 64 elements at a time.
//
// A level file includes this below its target pragma and instantiates `level<Isa>`. `Isa` gives
//   static uint64_t keep64(uint64_t block, const Schedule&)          keep bits of the 64 coins from 4 * block on
//   static void apply64(T* dst, const T* src, uint64_t keep, Scaled<T, shifted>)
//   static void add64(T* dst, const T* a, const T* b)                the sums of 64 elements
// The anonymous namespace keeps code that was compiled for one instruction set from being linked into another's.
#pragma once

#include <algorithm>
#include <cstdint>

#include "element.h"
#include "level.h"

namespace dropkit {
namespace {

// Coins in words of 64, from any coin on: a run that starts inside a Philox block is shifted into place.
template <class Isa>
class Coins {
 public:
  Coins(const std::uint64_t coin, const Schedule& keys)
      : keys_(keys), block_(coin / 4), skip_(static_cast<int>(coin % 4)) {
    if (skip_ != 0) ahead_ = draw();
  }

  std::uint64_t next() {
    if (skip_ == 0) return draw();
    const std::uint64_t now = ahead_;
    ahead_ = draw();
    return now >> skip_ | ahead_ << (64 - skip_);
  }

 private:
  std::uint64_t draw() {
    const std::uint64_t word = Isa::keep64(block_, keys_);
    block_ += 16;
    return word;
  }

  const Schedule& keys_;
  std::uint64_t block_, ahead_ = 0;
  const int skip_;
};

template <class Isa>
void bits(std::uint64_t* const out, const std::int64_t n, const std::uint64_t coin, const Schedule& keys) {
  Coins<Isa> coins(coin, keys);
  for (std::int64_t i = 0; i < n; i += 64) out[i / 64] = coins.next();
}

// Up to 64 elements of any stride, by way of a dense copy, so that ends and gaps obey the same arithmetic.
template <class Isa, class T, bool shifted>
void apply_some(T* const dst, const std::int64_t dst_stride, const T* const src, const std::int64_t src_stride,
                const std::int64_t n, const std::uint64_t keep, const Scaled<T, shifted>& values) {
  alignas(64) T dense[64] = {};
  for (std::int64_t i = 0; i < n; ++i) dense[i] = src[i * src_stride];
  Isa::apply64(dense, dense, keep, values);
  for (std::int64_t i = 0; i < n; ++i) dst[i * dst_stride] = dense[i];
}

// Drawing 64 coins takes longer than the processor looks ahead, so it must be told what to fetch meanwhile. Without
// this a large tensor takes 2.5 times as long on one core.
template <class T>
void fetch64(const T* const src) {
  constexpr int line = 64 / sizeof(T);
  for (int i = 0; i < 64; i += line) __builtin_prefetch(src + i);
}

template <class Isa, class T, bool shifted>
void fused(void* const dst, const void* const src, const std::int64_t n, const std::uint64_t coin,
           const Schedule& keys, const Values& values) {
  const Scaled<T, shifted> scaled(values);
  auto* const to = static_cast<T*>(dst);
  const auto* const from = static_cast<const T*>(src);
  constexpr std::int64_t ahead = 1024 / sizeof(T);  // 512 to 4096 bytes measured the same
  Coins<Isa> coins(coin, keys);
  std::int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    fetch64(from + std::min(i + ahead, n - 64));
    Isa::apply64(to + i, from + i, coins.next(), scaled);
  }
  if (i < n) apply_some<Isa>(to + i, 1, from + i, 1, n - i, coins.next(), scaled);
}

template <class Isa, class T, bool shifted>
void added(void* const dst, const void* const src, const void* const add, const std::int64_t n, const std::uint64_t coin,
           const Schedule& keys, const Values& values) {
  const Scaled<T, shifted> scaled(values);
  auto* const to = static_cast<T*>(dst);
  const auto *const from = static_cast<const T*>(src), *const more = static_cast<const T*>(add);
  constexpr std::int64_t ahead = 1024 / sizeof(T);
  alignas(64) T dropped[64] = {};
  Coins<Isa> coins(coin, keys);
  std::int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const std::int64_t next = std::min(i + ahead, n - 64);
    fetch64(from + next);
    fetch64(more + next);
    Isa::apply64(dropped, from + i, coins.next(), scaled);
    Isa::add64(to + i, dropped, more + i);
  }
  if (i == n) return;
  alignas(64) T rest[64] = {};
  apply_some<Isa>(dropped, 1, from + i, 1, n - i, coins.next(), scaled);
  std::copy(more + i, more + n, rest);
  Isa::add64(rest, dropped, rest);
  std::copy(rest, rest + (n - i), to + i);
}

template <class Isa, class T, bool shifted>
void masked(void* const dst, const std::int64_t dst_stride, const void* const src, const std::int64_t src_stride,
            const std::int64_t n, const std::uint64_t* const bits, const Values& values) {
  const Scaled<T, shifted> scaled(values);
  auto* const to = static_cast<T*>(dst);
  const auto* const from = static_cast<const T*>(src);
  std::int64_t i = 0;
  if (dst_stride == 1 && src_stride == 1) {
    for (; i + 64 <= n; i += 64) Isa::apply64(to + i, from + i, bits[i / 64], scaled);
  }
  for (; i < n; i += 64) {
    apply_some<Isa>(to + i * dst_stride, dst_stride, from + i * src_stride, src_stride, std::min<std::int64_t>(64, n - i),
                    bits[i / 64], scaled);
  }
}

template <class T, bool shifted>
void fill(void* const dst, const std::int64_t dst_stride, const std::int64_t n, const Values& values) {
  auto* const to = static_cast<T*>(dst);
  const T dropped = Scaled<T, shifted>(values).dropped();
  if (dst_stride == 1) {
    std::fill_n(to, n, dropped);
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i * dst_stride] = dropped;
  }
}

template <class Isa, class T, bool shifted>
constexpr Rows rows() {
  return {fused<Isa, T, shifted>, added<Isa, T, shifted>, masked<Isa, T, shifted>, fill<T, shifted>};
}

template <class Isa>
constexpr Level level(const char* const name, bool (*const runs_here)()) {
  return {name,
          runs_here,
          bits<Isa>,
          {{rows<Isa, float, false>(), rows<Isa, float, true>()},
           {rows<Isa, double, false>(), rows<Isa, double, true>()},
           {rows<Isa, Bfloat16, false>(), rows<Isa, Bfloat16, true>()},
           {rows<Isa, Float16, false>(), rows<Isa, Float16, true>()}}};
}

}  // namespace
}  // namespace dropkit

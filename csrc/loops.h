// The loops around an instruction set's primitives: 64 mask elements at a time, 64 tensor elements at a time.
//
// The file of an instruction set includes this below its target pragma and instantiates `make_isa<Simd>`. `Simd` gives
//   static uint64_t keep64(uint64_t block, const Schedule&)          keep bits of the 64 mask elements from a block on
//   static void apply64(T* dst, const T* src, uint64_t keep, Scaled<T, shifted>)
//   static void add64(T* dst, const T* a, const T* b)                the sums of 64 elements
//   static void words64(uint32_t* out, uint64_t block, const Schedule&)  the words of the 64 mask elements from a block on
//   static void widen64(float* out, const T* src)                    64 narrow elements as float32
//   static void narrow64(T* dst, const float* src)                   and back, rounded to nearest
// The anonymous namespace keeps code that was compiled for one instruction set from being linked into another's.
#pragma once

#include <algorithm>
#include <cstdint>

#include "element.h"
#include "isa.h"
#include "noise.h"
#include "platform.h"

namespace dropkit {
namespace {

// Keep bits in words of 64, from any mask index on: a stretch that starts inside a Philox block is shifted into place.
template <class Simd>
class KeepBits {
 public:
  KeepBits(const std::uint64_t index, const Schedule& keys)
      : keys_(keys), block_(keys.first + index / 4), skip_(static_cast<int>(index % 4)) {
    if (skip_ != 0) ahead_ = compute();
  }

  std::uint64_t next() {
    if (skip_ == 0) return compute();
    const std::uint64_t now = ahead_;
    ahead_ = compute();
    return now >> skip_ | ahead_ << (64 - skip_);
  }

 private:
  std::uint64_t compute() {
    const std::uint64_t word = Simd::keep64(block_, keys_);
    block_ += 16;
    return word;
  }

  const Schedule& keys_;
  std::uint64_t block_, ahead_ = 0;
  const int skip_;
};

template <class Simd>
void bits(std::uint64_t* const out, const std::int64_t n, const std::uint64_t index, const Schedule& keys) {
  KeepBits<Simd> keep(index, keys);
  for (std::int64_t i = 0; i < n; i += 64) out[i / 64] = keep.next();
}

template <class Simd>
const std::uint32_t* words(std::uint32_t* const out, const std::int64_t n, const std::uint64_t index, const Schedule& keys) {
  const auto skip = static_cast<std::int64_t>(index % 4);
  const std::uint64_t block = keys.first + index / 4;
  for (std::int64_t i = 0; i < skip + n; i += 64) Simd::words64(out + i, block + static_cast<std::uint64_t>(i) / 4, keys);
  return out + skip;
}

// Up to 64 elements of any stride, by way of a dense copy, so that ends and gaps obey the same arithmetic.
template <class Simd, class T, bool shifted>
void apply_some(T* const dst, const std::int64_t dst_stride, const T* const src, const std::int64_t src_stride,
                const std::int64_t n, const std::uint64_t keep, const Scaled<T, shifted>& affine) {
  alignas(64) T dense[64] = {};
  for (std::int64_t i = 0; i < n; ++i) dense[i] = src[i * src_stride];
  Simd::apply64(dense, dense, keep, affine);
  for (std::int64_t i = 0; i < n; ++i) dst[i * dst_stride] = dense[i];
}

// Computing 64 keep bits takes longer than the processor prefetches ahead by itself. Without this a large tensor takes
// 2.5 times as long on one core.
template <class T>
void fetch64(const T* const src) {
  constexpr int line = 64 / sizeof(T);
  for (int i = 0; i < 64; i += line) prefetch(src + i);
}

template <class Simd, class T, bool shifted>
void fused(void* const dst, const void* const src, const std::int64_t n, const std::uint64_t index,
           const Schedule& keys, const Affine& affine) {
  const Scaled<T, shifted> scaled(affine);
  auto* const to = static_cast<T*>(dst);
  const auto* const from = static_cast<const T*>(src);
  constexpr std::int64_t ahead = 1024 / sizeof(T);  // 512 to 4096 bytes measured the same
  KeepBits<Simd> keep(index, keys);
  std::int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    fetch64(from + std::min(i + ahead, n - 64));
    Simd::apply64(to + i, from + i, keep.next(), scaled);
  }
  if (i < n) apply_some<Simd>(to + i, 1, from + i, 1, n - i, keep.next(), scaled);
}

template <class Simd, class T, bool shifted>
void added(void* const dst, const void* const src, const void* const add, const std::int64_t n, const std::uint64_t index,
           const Schedule& keys, const Affine& affine) {
  const Scaled<T, shifted> scaled(affine);
  auto* const to = static_cast<T*>(dst);
  const auto *const from = static_cast<const T*>(src), *const more = static_cast<const T*>(add);
  constexpr std::int64_t ahead = 1024 / sizeof(T);
  alignas(64) T dropped[64] = {};
  KeepBits<Simd> keep(index, keys);
  std::int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    const std::int64_t next = std::min(i + ahead, n - 64);
    fetch64(from + next);
    fetch64(more + next);
    Simd::apply64(dropped, from + i, keep.next(), scaled);
    Simd::add64(to + i, dropped, more + i);
  }
  if (i == n) return;
  alignas(64) T rest[64] = {};
  apply_some<Simd>(dropped, 1, from + i, 1, n - i, keep.next(), scaled);
  std::copy(more + i, more + n, rest);
  Simd::add64(rest, dropped, rest);
  std::copy(rest, rest + (n - i), to + i);
}

template <class Simd, class T, bool shifted>
void masked(void* const dst, const std::int64_t dst_stride, const void* const src, const std::int64_t src_stride,
            const std::int64_t n, const std::uint64_t* const bits, const Affine& affine) {
  const Scaled<T, shifted> scaled(affine);
  auto* const to = static_cast<T*>(dst);
  const auto* const from = static_cast<const T*>(src);
  std::int64_t i = 0;
  if (dst_stride == 1 && src_stride == 1) {
    for (; i + 64 <= n; i += 64) Simd::apply64(to + i, from + i, bits[i / 64], scaled);
  } else if (dst_stride == 1 && src_stride == 0) {
    // An expanded gradient, such as that of a sum.
    alignas(64) T same[64];
    std::fill_n(same, 64, *from);
    for (; i + 64 <= n; i += 64) Simd::apply64(to + i, same, bits[i / 64], scaled);
  }
  for (; i < n; i += 64) {
    apply_some<Simd>(to + i * dst_stride, dst_stride, from + i * src_stride, src_stride, std::min<std::int64_t>(64, n - i),
                    bits[i / 64], scaled);
  }
}

template <class Simd, class T>
void noisy(void* const dst, const std::int64_t dst_stride, const void* const src, const std::int64_t src_stride,
           const std::int64_t n, const std::uint32_t* const words, const Noise& noise) {
  auto* const to = static_cast<T*>(dst);
  const auto* const from = static_cast<const T*>(src);
  std::int64_t i = 0;
  if (dst_stride == 1 && src_stride == 1) {
    for (; i + 64 <= n; i += 64) noise64<Simd>(to + i, from + i, words + i, noise);
  }
  alignas(64) T dense[64] = {};
  alignas(64) std::uint32_t some_words[64] = {};
  for (; i < n; i += 64) {
    const std::int64_t some = std::min<std::int64_t>(64, n - i);
    for (std::int64_t k = 0; k < some; ++k) dense[k] = from[(i + k) * src_stride];
    std::copy_n(words + i, some, some_words);
    noise64<Simd>(dense, dense, some_words, noise);
    for (std::int64_t k = 0; k < some; ++k) to[(i + k) * dst_stride] = dense[k];
  }
}

template <class T, bool shifted>
void fill(void* const dst, const std::int64_t dst_stride, const std::int64_t n, const Affine& affine) {
  auto* const to = static_cast<T*>(dst);
  const T dropped = Scaled<T, shifted>(affine).dropped();
  if (dst_stride == 1) {
    std::fill_n(to, n, dropped);
  } else {
    for (std::int64_t i = 0; i < n; ++i) to[i * dst_stride] = dropped;
  }
}

template <class Simd, class T, bool shifted>
constexpr Rows rows() {
  return {fused<Simd, T, shifted>, added<Simd, T, shifted>, masked<Simd, T, shifted>, fill<T, shifted>,
          noisy<Simd, T>};
}

template <class Simd>
constexpr Isa make_isa(const char* const name, bool (*const runs_here)()) {
  return {name,
          runs_here,
          bits<Simd>,
          words<Simd>,
          {{rows<Simd, float, false>(), rows<Simd, float, true>()},
           {rows<Simd, double, false>(), rows<Simd, double, true>()},
           {rows<Simd, Bfloat16, false>(), rows<Simd, Bfloat16, true>()},
           {rows<Simd, Float16, false>(), rows<Simd, Float16, true>()}}};
}

}  // namespace
}  // namespace dropkit

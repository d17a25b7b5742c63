// Plain C++ for any machine. The other instruction sets must give the same bits.
#include "loops.h"

namespace dropkit {
namespace {

struct Scalar {
  static std::uint64_t keep64(const std::uint64_t block, const Schedule& keys) {
    std::uint64_t keep = 0;
    for (std::size_t b = 0; b < 16; ++b) {
      const Block words = mask_words(block + b, keys);
      for (std::size_t w = 0; w < 4; ++w) keep |= std::uint64_t{words[w] >= keys.threshold} << (4 * b + w);
    }
    return keep;
  }

  static void words64(std::uint32_t* const out, const std::uint64_t block, const Schedule& keys) {
    for (std::size_t b = 0; b < 16; ++b) {
      const Block words = mask_words(block + b, keys);
      std::copy(words.begin(), words.end(), out + 4 * b);
    }
  }

  template <class T>
  static void widen64(float* const out, const T* const src) {
    for (int i = 0; i < 64; ++i) out[i] = widen(src[i]);
  }

  template <class T>
  static void narrow64(T* const dst, const float* const src) {
    for (int i = 0; i < 64; ++i) narrow(dst[i], src[i]);
  }

  template <class T, bool shifted>
  static void apply64(T* const dst, const T* const src, const std::uint64_t keep, const Scaled<T, shifted>& affine) {
    const T dropped = affine.dropped();
    for (int i = 0; i < 64; ++i) dst[i] = keep >> i & 1 ? affine.kept(src[i]) : dropped;
  }

  template <class T>
  static void add64(T* const dst, const T* const a, const T* const b) {
    for (int i = 0; i < 64; ++i) narrow(dst[i], widen(a[i]) + widen(b[i]));
  }
};

}  // namespace

constexpr Isa scalar_isa = make_isa<Scalar>("scalar", [] { return true; });

}  // namespace dropkit

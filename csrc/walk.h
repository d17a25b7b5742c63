// The affine coin map: where the elements of a tensor lie in memory and which coin each of them uses.
#pragma once

#include <cstdint>

namespace dropkit {

inline constexpr int kMaxDims = 64;  // torch's own limit

// One dimension: its size, and by how much one step along it moves in the output, in the input and in the coins.
struct Dim {
  std::int64_t size, dst, src, coin;
};

struct Walk {
  Dim dims[kMaxDims];
  int rank = 0;
  std::uint64_t base = 0;  // coin of the first element

  const Dim& inner() const { return dims[rank - 1]; }
  std::int64_t count() const;
};

// The same elements with the same coins in the order of the output's memory: dimensions of size 1 gone, the rest sorted
// by output stride, those that run on into one another joined. Rank is at least 1 afterwards.
void straighten(Walk& walk);

}  // namespace dropkit

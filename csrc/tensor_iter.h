// Where the elements of a tensor lie in memory, and which mask element each of them uses.
#pragma once

#include <cstdint>

namespace dropkit {

inline constexpr int kMaxDims = 64;  // torch's own limit

// One dimension: its size, and its strides in the output, the input and the mask.
struct Dim {
  std::int64_t size, dst, src, mask;
};

// An element lies at sum(coordinate * stride) and has mask index mask_offset + sum(coordinate * mask stride).
struct TensorIter {
  Dim dims[kMaxDims];
  int rank = 0;
  std::uint64_t mask_offset = 0;  // mask index of the first element

  const Dim& inner() const { return dims[rank - 1]; }
  std::int64_t count() const;
};

// Puts the same elements in the order of the output's memory: removes dimensions of size 1, sorts the others by output
// stride, and merges neighbours that can be walked as one. The rank is at least 1 afterwards.
void coalesce(TensorIter& iter);

}  // namespace dropkit

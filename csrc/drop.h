// One dropout call on memory.
#pragma once

#include <cstdint>

#include "isa.h"
#include "tensor_iter.h"

namespace dropkit {

// libtorch's exported `torch_parallel_for`; returns 0 on success.
using ParallelFor = std::int32_t (*)(std::int64_t begin, std::int64_t end, std::int64_t grain,
                                     void (*body)(std::int64_t, std::int64_t, void*), void* context);

// Gives each slice of a tensor along its first `rank` dimensions a key and a first block of its own. Strides count numbers.
struct SliceKeys {
  int rank = 0;
  const std::uint64_t* keys = nullptr;
  const std::uint64_t* first_blocks = nullptr;  // null for zeros
  std::int64_t strides[kMaxDims];

  std::uint64_t first_block(const std::int64_t place) const { return first_blocks == nullptr ? 0 : first_blocks[place]; }
};

struct Call {
  void* dst;
  const void* src;
  Dtype dtype;
  std::uint64_t key;
  std::uint64_t first_block = 0;  // of Philox, the one of mask index 0
  std::uint64_t threshold;  // in [0, 2**32]; at 2**32 every element is dropped
  Affine affine;
  bool is_noise = false;  // apply `noise` instead of threshold and affine; `add` is null
  Noise noise = {};
  const void* add = nullptr;  // added to the result unless null; all three must be one dense row, with one key
  const SliceKeys* slices = nullptr;   // instead of `key` and `first_block`, unless null
  const SliceKeys* columns = nullptr;  // the same, with one dimension, the last of the TensorIter; only within the kernel
};

// Writes every element of `iter`. Serial where `pool` is null or the work is small; the result does not depend on it.
// False where the pool failed.
bool drop(const Call& call, TensorIter iter, const Isa& isa, ParallelFor pool);

}  // namespace dropkit

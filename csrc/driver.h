// The drivers: ways to run a call, and what they share. Internal to drop.cpp, rows.cpp and tiles.cpp.
#pragma once

#include <algorithm>
#include <cstdint>

#include "drop.h"

namespace dropkit {

inline constexpr std::int64_t kCell = 64;         // elements in a word of keep bits, the unit of work along rows
inline constexpr std::int64_t kMaxRow = 1 << 13;  // most elements whose keep bits are stored at once
inline constexpr std::int64_t kSerial = 1 << 15;  // below this many elements the pool costs more than it gives

// A call with everything that a driver needs.
struct Task {
  const Call& call;
  const TensorIter& iter;
  const Isa& isa;
  const Schedule& keys;
  const Rows& rows;
  const int bytes;

  void* to(const std::int64_t offset) const { return static_cast<char*>(call.dst) + offset * bytes; }
  const void* from(const std::int64_t offset) const { return static_cast<const char*>(call.src) + offset * bytes; }

  const void* addend(const std::int64_t offset) const { return static_cast<const char*>(call.add) + offset * bytes; }

  void apply(const std::int64_t dst, const std::int64_t src, const std::int64_t n, const std::uint64_t* const bits) const {
    rows.masked(to(dst), iter.inner().dst, from(src), iter.inner().src, n, bits, call.affine);
  }
};

// Where an element lies in the output and in the input, and its mask index.
struct Place {
  std::int64_t dst = 0, src = 0;
  std::uint64_t mask = 0;
};

// Steps through the coordinates of some dimensions; the last one changes fastest.
class Odometer {
 public:
  Odometer(const Dim* const dims, const int rank, const std::uint64_t mask_offset, std::int64_t index)
      : dims_(dims), rank_(rank) {
    place_.mask = mask_offset;
    for (int d = rank - 1; d >= 0; --d) {
      at_[d] = index % dims[d].size;
      index /= dims[d].size;
      move(dims[d], at_[d]);
    }
  }

  const Place& place() const { return place_; }
  std::int64_t at(const int d) const { return at_[d]; }

  void advance() {
    for (int d = rank_ - 1; d >= 0; --d) {
      move(dims_[d], 1);
      if (++at_[d] < dims_[d].size) return;
      move(dims_[d], -dims_[d].size);
      at_[d] = 0;
    }
  }

 private:
  void move(const Dim& dim, const std::int64_t steps) {
    place_.dst += steps * dim.dst;
    place_.src += steps * dim.src;
    place_.mask += static_cast<std::uint64_t>(steps * dim.mask);
  }

  const Dim* const dims_;
  const int rank_;
  std::int64_t at_[kMaxDims];
  Place place_;
};

// Appends bit strings of any length to one another.
class BitWriter {
 public:
  explicit BitWriter(std::uint64_t* const words) : words_(words) { clear(); }

  std::int64_t size() const { return size_; }

  void clear() {
    words_[0] = 0;
    size_ = 0;
  }

  // n in [1, 64]; bits of `value` from n on must be 0. Writes one word past the last full one.
  void append(const std::uint64_t value, const std::int64_t n) {
    const std::int64_t used = size_ % kCell;
    words_[size_ / kCell] |= value << used;
    size_ += n;
    if (used + n >= kCell) words_[size_ / kCell] = used == 0 ? 0 : value >> (kCell - used);
  }

 private:
  std::uint64_t* const words_;
  std::int64_t size_ = 0;
};

// Runs units begin ... end of a plan.
using Run = void (*)(const Task&, std::int64_t begin, std::int64_t end);

// The units of these are cells.
// Mask stride 1 along the inner dimension.
void run_consecutive(const Task&, std::int64_t begin, std::int64_t end);
// The same, and consecutive rows, which lie side by side in memory, use the same mask elements.
void run_repeating(const Task&, std::int64_t begin, std::int64_t end);
bool repeats(const TensorIter&);
// The same mask element for a short row that lies beside the next one, and consecutive ones along the rows: the units are
// cells of mask elements.
void run_widened(const Task&, std::int64_t begin, std::int64_t end);
bool widens(const TensorIter&);
// Mask stride 0 along the inner dimension.
void run_shared(const Task&, std::int64_t begin, std::int64_t end);
// Any mask stride.
void run_scattered(const Task&, std::int64_t begin, std::int64_t end);

// Noise, with any mask strides.
void run_noisy(const Task&, std::int64_t begin, std::int64_t end);

// The part of a call that has the key `call.key`; `iter` is coalesced. Serial where `pool` is null or the work is small.
bool drop_by_one_key(const Call&, TensorIter&, const Isa&, ParallelFor pool);
// A call with `call.slices`; `iter` is not coalesced.
bool drop_slices(const Call&, const TensorIter&, const Isa&, ParallelFor pool);

// The units are tiles over the last two dimensions: the outer one has mask stride 1, the inner one runs along memory.
struct Tiles {
  std::int64_t mask_size, memory_size;    // of a tile, along the outer and along the inner dimension
  std::int64_t mask_tiles, memory_tiles;  // how many tiles there are along each
  explicit Tiles(const TensorIter&);
};
void run_tiles(const Task&, std::int64_t begin, std::int64_t end);

}  // namespace dropkit

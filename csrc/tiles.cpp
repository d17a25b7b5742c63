// The driver for tensors whose mask and memory run along different dimensions (transposed, channels_last): it computes
// the keep bits of a tile along the mask, transposes them, and uses them along the memory.
#include <algorithm>

#include "driver.h"
#include "platform.h"

namespace dropkit {
namespace {

constexpr std::int64_t kShort = kCell, kLong = 4 * kCell;
constexpr std::int64_t kWords = kShort * kLong / kCell;

// One step of transposing a square of bits: swaps blocks of `width` by `width` bits across the diagonal. A template, so
// that the compiler sees loops of known length and uses vectors.
template <int width>
void swap_blocks(std::uint64_t (&words)[kCell], const std::uint64_t mask) {
  for (int block = 0; block < kCell; block += 2 * width) {
    for (int i = block; i < block + width; ++i) {
      const std::uint64_t swap = (words[i] >> width ^ words[i + width]) & mask;
      words[i] ^= swap << width;
      words[i + width] ^= swap;
    }
  }
}

// Bit j of word i becomes bit i of word j.
// Source: Warren, "Hacker's Delight", 2nd edition, 2012, section 7-3.
void transpose(std::uint64_t (&words)[kCell]) {
  swap_blocks<32>(words, 0x00000000FFFFFFFF);
  swap_blocks<16>(words, 0x0000FFFF0000FFFF);
  swap_blocks<8>(words, 0x00FF00FF00FF00FF);
  swap_blocks<4>(words, 0x0F0F0F0F0F0F0F0F);
  swap_blocks<2>(words, 0x3333333333333333);
  swap_blocks<1>(words, 0x5555555555555555);
}

// Prefetches the memory of a tile, a cache line at a time, in equal parts while its keep bits are computed: its rows lie
// far apart, which the processor does not predict.
class Fetch {
 public:
  // `run` elements, `gap` bytes apart, in each of `rows` rows, `step` bytes apart.
  Fetch(const void* const start, const std::int64_t run, const std::int64_t gap, const std::int64_t rows, const std::int64_t step)
      : row_(static_cast<const char*>(start)),
        next_(std::max(kLine, gap)),
        step_(step),
        lines_((run * gap + next_ - 1) / next_),
        total_(rows * lines_) {}

  // Up to part `part` of `parts`.
  void advance(const std::int64_t part, const std::int64_t parts) {
    for (const std::int64_t end = total_ * part / parts; done_ < end; ++done_) {
      prefetch(row_ + line_ * next_);
      if (++line_ == lines_) {
        line_ = 0;
        row_ += step_;
      }
    }
  }

 private:
  static constexpr std::int64_t kLine = 64;
  const char* row_;
  const std::int64_t next_, step_, lines_, total_;
  std::int64_t line_ = 0, done_ = 0;
};

class Tile {
 public:
  Tile(const Task& task, const Tiles& tiles)
      : task_(task),
        along_(task.iter.dims[task.iter.rank - 2]),
        inner_(task.iter.inner()),
        words_(tiles.mask_size / kCell),
        side_by_side_(inner_.size < kCell && inner_.dst == 1 && inner_.src == 1 && along_.dst == inner_.size &&
                      along_.src == inner_.size),
        one_stretch_(tiles.mask_tiles == 1 && inner_.mask == along_.size && task.call.columns == nullptr) {}

  // Drops a tile of `rows` places along the mask by `run` elements along the memory, from column `column` on.
  void drop(const Place& place, const std::int64_t column, const std::int64_t rows, const std::int64_t run) {
    compute(place, column, rows, run);
    BitWriter writer(spread_);
    for (std::int64_t word = 0; word * kCell < rows; ++word) {
      transpose_word(word, run);
      for (std::int64_t k = 0; k < std::min(kCell, rows - word * kCell); ++k) {
        const std::int64_t row = word * kCell + k;
        if (side_by_side_) {
          writer.append(turned_[k][0], run);
        } else {
          task_.apply(place.dst + row * along_.dst, place.src + row * along_.src, run, turned_[k]);
        }
      }
    }
    if (side_by_side_) task_.apply(place.dst, place.src, writer.size(), spread_);
  }

 private:
  // Fills bits_: word `word` of column i holds the keep bits of rows 64 * word ... at memory position i.
  void compute(const Place& place, const std::int64_t column, const std::int64_t rows, const std::int64_t run) {
    Fetch fetch(task_.from(place.src), run, inner_.src * task_.bytes, rows, along_.src * task_.bytes);
    if (one_stretch_) {
      compute_at_once(place.mask, rows, run, fetch);
      return;
    }
    for (std::int64_t i = 0; i < run; ++i) {
      fetch.advance(i + 1, run);
      const std::uint64_t index = place.mask + static_cast<std::uint64_t>(i * inner_.mask);
      if (task_.call.columns == nullptr) {
        task_.isa.bits(bits_ + i * words_, rows, index, task_.keys);
      } else {
        const SliceKeys& columns = *task_.call.columns;
        const std::int64_t at = columns.strides[0] * (column + i);
        const Schedule keys(columns.keys[at], columns.first_block(at), task_.keys.threshold);
        task_.isa.bits(bits_ + i * words_, rows, index, keys);
      }
    }
  }

  // The mask indices of the columns follow one another: their keep bits are computed as one, in pieces, and cut up.
  void compute_at_once(const std::uint64_t index, const std::int64_t rows, const std::int64_t run, Fetch& fetch) {
    const std::int64_t count = run * rows, piece = 8 * kCell;
    for (std::int64_t i = 0; i < count; i += piece) {
      fetch.advance(i + piece, count + piece);
      task_.isa.bits(spread_ + i / kCell, std::min(piece, count - i), index + static_cast<std::uint64_t>(i), task_.keys);
    }
    for (std::int64_t i = 0; i < run; ++i) {
      for (std::int64_t word = 0; word < words_; ++word) {
        const std::int64_t first = i * rows + word * kCell, shift = first % kCell;
        const std::uint64_t low = spread_[first / kCell], high = spread_[first / kCell + 1];
        bits_[i * words_ + word] = shift == 0 ? low : low >> shift | high << (kCell - shift);
      }
    }
  }

  // Fills turned_: row k holds the keep bits of row 64 * word + k along the memory.
  void transpose_word(const std::int64_t word, const std::int64_t run) {
    for (std::int64_t first = 0; first < run; first += kCell) {
      std::uint64_t square[kCell];
      for (std::int64_t i = 0; i < kCell; ++i) square[i] = first + i < run ? bits_[(first + i) * words_ + word] : 0;
      transpose(square);
      for (std::int64_t k = 0; k < kCell; ++k) turned_[k][first / kCell] = square[k];
    }
  }

  const Task& task_;
  const Dim &along_, &inner_;
  const std::int64_t words_;
  const bool side_by_side_, one_stretch_;
  std::uint64_t bits_[kWords], turned_[kCell][kLong / kCell], spread_[kWords + 5] = {};
};

}  // namespace

Tiles::Tiles(const TensorIter& iter) {
  const Dim* const last = iter.dims + iter.rank - 1;
  const Dim &along = *(last - 1), &inner = *last;
  // A stretch that starts inside a Philox block computes 64 bits more than it needs: of 128 for 64, of 320 for 256.
  const bool aligned = iter.mask_offset % 4 == 0 && std::all_of(iter.dims, last + 1, [&](const Dim& d) {
                         return &d == &along || d.mask % 4 == 0;
                       });
  const bool wide = aligned || along.size <= kShort;
  mask_size = std::min(wide ? kShort : kLong, (along.size + kCell - 1) / kCell * kCell);
  memory_size = wide ? kLong : kShort;
  mask_tiles = (along.size + mask_size - 1) / mask_size;
  memory_tiles = (inner.size + memory_size - 1) / memory_size;
}

void run_tiles(const Task& task, const std::int64_t begin, const std::int64_t end) {
  const TensorIter& iter = task.iter;
  const Tiles tiles(iter);
  Dim dims[kMaxDims];
  std::copy_n(iter.dims, iter.rank, dims);
  Dim &along = dims[iter.rank - 2], &inner = dims[iter.rank - 1];
  along = {tiles.mask_tiles, along.dst * tiles.mask_size, along.src * tiles.mask_size, along.mask * tiles.mask_size};
  inner = {tiles.memory_tiles, inner.dst * tiles.memory_size, inner.src * tiles.memory_size, inner.mask * tiles.memory_size};
  const std::int64_t mask_total = iter.dims[iter.rank - 2].size, memory_total = iter.inner().size;
  Odometer outer(dims, iter.rank, iter.mask_offset, begin);
  Tile tile(task, tiles);
  for (std::int64_t i = begin; i < end; ++i, outer.advance()) {
    const std::int64_t rows = std::min(tiles.mask_size, mask_total - outer.at(iter.rank - 2) * tiles.mask_size);
    const std::int64_t column = outer.at(iter.rank - 1) * tiles.memory_size;
    tile.drop(outer.place(), column, rows, std::min(tiles.memory_size, memory_total - column));
  }
}

}  // namespace dropkit

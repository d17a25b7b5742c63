// Tiles, for tensors whose coins and memory run along different dimensions (transposed, channels_last): the bits of a
// tile are drawn along the coins, turned, and used along the memory.
#include <algorithm>

#include "run.h"

namespace dropkit {
namespace {

constexpr std::int64_t kShort = kCell, kLong = 4 * kCell;
constexpr std::int64_t kWords = kShort * kLong / kCell;

// One step of turning a square of bits: blocks of `width` by `width` bits change places across the diagonal. A template,
// so that the compiler sees loops of known length and uses vectors.
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

// Asks for the memory of a tile, a line at a time, in equal parts while its coins are drawn: its rows lie far apart,
// which the processor does not guess.
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
      __builtin_prefetch(row_ + line_ * next_);
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
        along_(task.walk.dims[task.walk.rank - 2]),
        inner_(task.walk.inner()),
        words_(tiles.coins / kCell),
        side_by_side_(inner_.size < kCell && inner_.dst == 1 && inner_.src == 1 && along_.dst == inner_.size &&
                      along_.src == inner_.size),
        one_draw_(tiles.coin_tiles == 1 && inner_.coin == along_.size) {}

  void run(const Place& place, const std::int64_t coins, const std::int64_t run) {
    draw(place, coins, run);
    BitWriter writer(spread_);
    for (std::int64_t word = 0; word * kCell < coins; ++word) {
      turn(word, run);
      for (std::int64_t k = 0; k < std::min(kCell, coins - word * kCell); ++k) {
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
  // Fills drawn_: word `word` of column i holds coins 64 * word ... of memory position i.
  void draw(const Place& place, const std::int64_t coins, const std::int64_t run) {
    Fetch fetch(task_.from(place.src), run, inner_.src * task_.bytes, coins, along_.src * task_.bytes);
    if (one_draw_) {
      draw_at_once(place.coin, coins, run, fetch);
      return;
    }
    for (std::int64_t i = 0; i < run; ++i) {
      fetch.advance(i + 1, run);
      task_.level.bits(drawn_ + i * words_, coins, place.coin + static_cast<std::uint64_t>(i * inner_.coin), task_.keys);
    }
  }

  // The coins of the columns follow one another: one run of them is drawn, in pieces, and cut up.
  void draw_at_once(const std::uint64_t coin, const std::int64_t coins, const std::int64_t run, Fetch& fetch) {
    const std::int64_t count = run * coins, piece = 8 * kCell;
    for (std::int64_t i = 0; i < count; i += piece) {
      fetch.advance(i + piece, count + piece);
      task_.level.bits(spread_ + i / kCell, std::min(piece, count - i), coin + static_cast<std::uint64_t>(i), task_.keys);
    }
    for (std::int64_t i = 0; i < run; ++i) {
      for (std::int64_t word = 0; word < words_; ++word) {
        const std::int64_t first = i * coins + word * kCell, shift = first % kCell;
        const std::uint64_t low = spread_[first / kCell], high = spread_[first / kCell + 1];
        drawn_[i * words_ + word] = shift == 0 ? low : low >> shift | high << (kCell - shift);
      }
    }
  }

  void turn(const std::int64_t word, const std::int64_t run) {
    for (std::int64_t first = 0; first < run; first += kCell) {
      std::uint64_t square[kCell];
      for (std::int64_t i = 0; i < kCell; ++i) square[i] = first + i < run ? drawn_[(first + i) * words_ + word] : 0;
      transpose(square);
      for (std::int64_t k = 0; k < kCell; ++k) turned_[k][first / kCell] = square[k];
    }
  }

  const Task& task_;
  const Dim &along_, &inner_;
  const std::int64_t words_;
  const bool side_by_side_, one_draw_;
  std::uint64_t drawn_[kWords], turned_[kCell][kLong / kCell], spread_[kWords + 5] = {};
};

}  // namespace

Tiles::Tiles(const Walk& walk) {
  const Dim* const last = walk.dims + walk.rank - 1;
  const Dim &along = *(last - 1), &inner = *last;
  // A run of coins that starts inside a Philox block costs one draw more: of two for 64 coins, of five for 256.
  const bool aligned = walk.base % 4 == 0 && std::all_of(walk.dims, last + 1, [&](const Dim& d) {
                         return &d == &along || d.coin % 4 == 0;
                       });
  const bool wide = aligned || along.size <= kShort;
  coins = std::min(wide ? kShort : kLong, (along.size + kCell - 1) / kCell * kCell);
  run = wide ? kLong : kShort;
  coin_tiles = (along.size + coins - 1) / coins;
  run_tiles = (inner.size + run - 1) / run;
}

void run_tiles(const Task& task, const std::int64_t begin, const std::int64_t end) {
  const Walk& walk = task.walk;
  const Tiles tiles(walk);
  Dim dims[kMaxDims];
  std::copy_n(walk.dims, walk.rank, dims);
  Dim &along = dims[walk.rank - 2], &inner = dims[walk.rank - 1];
  along = {tiles.coin_tiles, along.dst * tiles.coins, along.src * tiles.coins, along.coin * tiles.coins};
  inner = {tiles.run_tiles, inner.dst * tiles.run, inner.src * tiles.run, inner.coin * tiles.run};
  const std::int64_t all_coins = walk.dims[walk.rank - 2].size, all_run = walk.inner().size;
  Odometer outer(dims, walk.rank, walk.base, begin);
  Tile tile(task, tiles);
  for (std::int64_t i = begin; i < end; ++i, outer.advance()) {
    const std::int64_t coins = std::min(tiles.coins, all_coins - outer.at(walk.rank - 2) * tiles.coins);
    const std::int64_t run = std::min(tiles.run, all_run - outer.at(walk.rank - 1) * tiles.run);
    tile.run(outer.place(), coins, run);
  }
}

}  // namespace dropkit

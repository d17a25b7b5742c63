// Tiles, for tensors whose coins and memory run along different dimensions (transposed, channels_last): the bits of a
// tile are drawn along the coins, turned, and used along the memory.
#include <algorithm>

#include "run.h"

namespace dropkit {
namespace {

constexpr std::int64_t kShort = kCell, kLong = 4 * kCell;
constexpr std::int64_t kWords = kShort * kLong / kCell;

// Bit j of word i becomes bit i of word j.
// Source: Warren, "Hacker's Delight", 2nd edition, 2012, section 7-3.
void transpose(std::uint64_t (&words)[kCell]) {
  std::uint64_t mask = 0x00000000FFFFFFFF;
  for (int width = 32; width != 0; width >>= 1, mask ^= mask << width) {
    for (int i = 0; i < kCell; i = ((i | width) + 1) & ~width) {
      const std::uint64_t swap = (words[i] >> width ^ words[i | width]) & mask;
      words[i] ^= swap << width;
      words[i | width] ^= swap;
    }
  }
}

void fetch(const void* const start, const std::int64_t bytes) {
  for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(start) + i);
}

class Tile {
 public:
  Tile(const Task& task, const Tiles& tiles)
      : task_(task),
        along_(task.walk.dims[static_cast<std::size_t>(task.walk.rank) - 2]),
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
  // Fills drawn_: word `word` of column i holds coins 64 * word ... of memory position i. The tile's memory is asked for
  // meanwhile: its rows lie far apart, which the processor does not guess.
  void draw(const Place& place, const std::int64_t coins, const std::int64_t run) {
    const std::int64_t rows_a_draw = (coins + run - 1) / run;
    for (std::int64_t i = 0; i < run; ++i) {
      for (std::int64_t row = i * rows_a_draw; row < std::min(coins, (i + 1) * rows_a_draw); ++row) {
        fetch(task_.from(place.src + row * along_.src), run * inner_.src * task_.bytes);
      }
      if (!one_draw_) {
        task_.level.bits(drawn_ + i * words_, coins, place.coin + static_cast<std::uint64_t>(i * inner_.coin), task_.keys);
      }
    }
    if (!one_draw_) return;
    // The columns' coins follow one another: one run of them is drawn and cut up.
    task_.level.bits(spread_, run * coins, place.coin, task_.keys);
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
  const auto last = walk.dims.begin() + walk.rank - 1;
  const Dim &along = *(last - 1), &inner = *last;
  // A run of coins that starts inside a Philox block costs one draw more: of two for 64 coins, of five for 256.
  const bool aligned = walk.base % 4 == 0 && std::all_of(walk.dims.begin(), last + 1, [&](const Dim& d) {
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
  std::copy_n(walk.dims.begin(), walk.rank, dims);
  Dim &along = dims[walk.rank - 2], &inner = dims[walk.rank - 1];
  along = {tiles.coin_tiles, along.dst * tiles.coins, along.src * tiles.coins, along.coin * tiles.coins};
  inner = {tiles.run_tiles, inner.dst * tiles.run, inner.src * tiles.run, inner.coin * tiles.run};
  const std::int64_t all_coins = walk.dims[static_cast<std::size_t>(walk.rank) - 2].size, all_run = walk.inner().size;
  Odometer outer(dims, walk.rank, walk.base, begin);
  Tile tile(task, tiles);
  for (std::int64_t i = begin; i < end; ++i, outer.advance()) {
    const std::int64_t coins = std::min(tiles.coins, all_coins - outer.at(walk.rank - 2) * tiles.coins);
    const std::int64_t run = std::min(tiles.run, all_run - outer.at(walk.rank - 1) * tiles.run);
    tile.run(outer.place(), coins, run);
  }
}

}  // namespace dropkit

// The drivers that walk along rows of memory, cut into cells.
#include <algorithm>

#include "driver.h"

namespace dropkit {
namespace {

// Calls body(row, first, n) for every stretch of elements first ... first + n of a row that lies in the given cells.
template <class Body>
void for_rows(const TensorIter& iter, const std::int64_t first_cell, const std::int64_t last_cell, const Body& body) {
  const std::int64_t begin = first_cell * kCell, end = std::min(last_cell * kCell, iter.count());
  const std::int64_t length = iter.inner().size;
  Odometer outer(iter.dims, iter.rank - 1, iter.mask_offset, begin / length);
  for (std::int64_t i = begin, first = begin % length; i < end; first = 0, outer.advance()) {
    const std::int64_t n = std::min(length - first, end - i);
    body(outer.place(), first, n);
    i += n;
  }
}

// Reads one mask element at a time; computes 256 at once where the next call is likely to ask for the next index.
class ElementBits {
 public:
  ElementBits(const Task& task, const bool consecutive) : task_(task), consecutive_(consecutive) {}

  bool kept(const std::uint64_t index) {
    if (task_.call.threshold >> 32 != 0) return false;
    if (!consecutive_) return dropkit::kept(index, task_.keys);
    if (index - start_ >= held_) {
      task_.isa.bits(window_, kWindow, index, task_.keys);
      start_ = index;
      held_ = kWindow;
    }
    const std::uint64_t i = index - start_;
    return window_[i / kCell] >> (i % kCell) & 1;
  }

 private:
  static constexpr std::int64_t kWindow = 256;
  const Task& task_;
  const bool consecutive_;
  std::uint64_t window_[kWindow / kCell], start_ = 0, held_ = 0;
};

// Collects short rows that lie side by side, and drops them as one long row.
class ShortRows {
 public:
  explicit ShortRows(const Task& task) : task_(task), writer_(bits_) {}
  ~ShortRows() { flush(); }
  ShortRows(const ShortRows&) = delete;
  ShortRows& operator=(const ShortRows&) = delete;

  void add(const std::int64_t dst, const std::int64_t src, const std::int64_t n, const bool keep) {
    const std::int64_t size = writer_.size();
    if (size + n > kMaxRow || dst != start_.dst + size || src != start_.src + size) flush();
    if (writer_.size() == 0) start_ = {dst, src, 0};
    writer_.append(keep ? ~std::uint64_t{0} >> (kCell - n) : 0, n);
  }

 private:
  void flush() {
    if (writer_.size() > 0) task_.apply(start_.dst, start_.src, writer_.size(), bits_);
    writer_.clear();
  }

  const Task& task_;
  std::uint64_t bits_[kMaxRow / kCell + 1] = {};
  BitWriter writer_;
  Place start_;
};

// Collects rows that are all kept or all dropped and lie one after the other, and writes them as one long row.
class EqualRows {
 public:
  explicit EqualRows(const Task& task) : task_(task), inner_(task.iter.inner()) {
    std::fill(std::begin(ones_), std::end(ones_), ~std::uint64_t{0});
  }
  ~EqualRows() { flush(); }
  EqualRows(const EqualRows&) = delete;
  EqualRows& operator=(const EqualRows&) = delete;

  void add(const std::int64_t dst, const std::int64_t src, const std::int64_t n, const bool keep) {
    if (keep != keep_ || dst != start_.dst + size_ * inner_.dst || src != start_.src + size_ * inner_.src) {
      flush();
      start_ = {dst, src, 0};
      keep_ = keep;
      size_ = 0;
    }
    size_ += n;
  }

 private:
  void flush() {
    if (!keep_) {
      task_.rows.fill(task_.to(start_.dst), inner_.dst, size_, task_.call.affine);
      return;
    }
    for (std::int64_t i = 0; i < size_; i += kMaxRow) {
      task_.apply(start_.dst + i * inner_.dst, start_.src + i * inner_.src, std::min(kMaxRow, size_ - i), ones_);
    }
  }

  const Task& task_;
  const Dim& inner_;
  std::uint64_t ones_[kMaxRow / kCell];
  Place start_;
  std::int64_t size_ = 0;
  bool keep_ = true;
};

// Bit i of the low half becomes bits 2 * i and 2 * i + 1.
std::uint64_t twice(std::uint64_t bits) {
  bits = (bits | bits << 16) & 0x0000FFFF0000FFFF;
  bits = (bits | bits << 8) & 0x00FF00FF00FF00FF;
  bits = (bits | bits << 4) & 0x0F0F0F0F0F0F0F0F;
  bits = (bits | bits << 2) & 0x3333333333333333;
  bits = (bits | bits << 1) & 0x5555555555555555;
  return bits | bits << 1;
}

// Repeats each of the first n bits of `in` `width` times, at most 64. Writes one word past the last full one.
void widen(std::uint64_t* const out, const std::uint64_t* const in, const std::int64_t n, const std::int64_t width) {
  if (width == 2) {  // complex numbers
    for (std::int64_t i = 0; i < n; i += 32) out[i / 32] = twice(in[i / kCell] >> (i % kCell) & 0xFFFFFFFF);
    return;
  }
  const std::uint64_t row = ~std::uint64_t{0} >> (kCell - width);
  const std::int64_t rows = kCell / width;
  BitWriter writer(out);
  for (std::int64_t i = 0; i < n; i += rows) {
    const std::int64_t some = std::min(rows, n - i);
    std::uint64_t word = 0;
    for (std::int64_t k = 0; k < some; ++k) {
      word |= (-(in[(i + k) / kCell] >> ((i + k) % kCell) & 1) & row) << (k * width);
    }
    writer.append(word, some * width);
  }
}

}  // namespace

void run_consecutive(const Task& task, const std::int64_t begin, const std::int64_t end) {
  const Dim& inner = task.iter.inner();
  const bool dense = inner.dst == 1 && inner.src == 1;
  std::uint64_t bits[kMaxRow / kCell];
  for_rows(task.iter, begin, end, [&](const Place& row, const std::int64_t first, const std::int64_t n) {
    const std::int64_t dst = row.dst + first * inner.dst, src = row.src + first * inner.src;
    const std::uint64_t index = row.mask + static_cast<std::uint64_t>(first);
    if (task.call.add != nullptr) {
      task.rows.added(task.to(dst), task.from(src), task.addend(src), n, index, task.keys, task.call.affine);
      return;
    }
    if (dense) {
      task.rows.fused(task.to(dst), task.from(src), n, index, task.keys, task.call.affine);
      return;
    }
    for (std::int64_t i = 0; i < n; i += kMaxRow) {
      const std::int64_t some = std::min(n - i, kMaxRow);
      task.isa.bits(bits, some, index + static_cast<std::uint64_t>(i), task.keys);
      task.apply(dst + i * inner.dst, src + i * inner.src, some, bits);
    }
  });
}

bool repeats(const TensorIter& iter) {
  if (iter.rank < 2 || iter.inner().mask != 1 || iter.inner().size > kMaxRow / 2) return false;
  const Dim &inner = iter.inner(), &next = iter.dims[iter.rank - 2];
  return next.mask == 0 && next.dst == inner.size * inner.dst && next.src == inner.size * inner.src;
}

void run_repeating(const Task& task, const std::int64_t begin, const std::int64_t end) {
  // Treats the two inner dimensions as one long row, whose mask repeats with this period.
  TensorIter iter = task.iter;
  const Dim inner = iter.inner();
  const std::int64_t period = inner.size, longest = kMaxRow / period * period;
  --iter.rank;
  iter.dims[iter.rank - 1] = {iter.inner().size * period, inner.dst, inner.src, 0};
  std::uint64_t once[kMaxRow / kCell], bits[kMaxRow / kCell + 1];
  for_rows(iter, begin, end, [&](const Place& row, const std::int64_t first, const std::int64_t n) {
    const auto apply = [&](const std::int64_t i, const std::int64_t some) {
      task.apply(row.dst + i * inner.dst, row.src + i * inner.src, some, bits);
    };
    const std::int64_t phase = first % period, head = phase == 0 ? 0 : std::min(n, period - phase), rest = n - head;
    if (head > 0) {
      task.isa.bits(bits, head, row.mask + static_cast<std::uint64_t>(phase), task.keys);
      apply(first, head);
    }
    if (rest == 0) return;
    task.isa.bits(once, period, row.mask, task.keys);
    BitWriter writer(bits);
    while (writer.size() < std::min(longest, rest)) {
      for (std::int64_t i = 0; i < period; i += kCell) {
        const std::int64_t some = std::min(kCell, period - i);
        writer.append(once[i / kCell] & ~std::uint64_t{0} >> (kCell - some), some);
      }
    }
    for (std::int64_t i = 0; i < rest; i += longest) apply(first + head + i, std::min(longest, rest - i));
  });
}

bool widens(const TensorIter& iter) {
  if (iter.rank < 2) return false;
  const Dim &inner = iter.inner(), &next = iter.dims[iter.rank - 2];
  const bool side_by_side = inner.dst == 1 && inner.src == 1 && next.dst == inner.size && next.src == inner.size;
  return side_by_side && inner.mask == 0 && next.mask == 1 && inner.size < kCell && next.size >= kCell;
}

void run_widened(const Task& task, const std::int64_t begin, const std::int64_t end) {
  TensorIter iter = task.iter;
  const std::int64_t width = iter.inner().size, most = kMaxRow / width;
  --iter.rank;
  std::uint64_t once[kMaxRow / 2 / kCell], bits[kMaxRow / kCell + 1];
  for_rows(iter, begin, end, [&](const Place& row, const std::int64_t first, const std::int64_t n) {
    for (std::int64_t i = first; i < first + n; i += most) {
      const std::int64_t some = std::min(most, first + n - i);
      task.isa.bits(once, some, row.mask + static_cast<std::uint64_t>(i), task.keys);
      widen(bits, once, some, width);
      task.apply(row.dst + i * width, row.src + i * width, some * width, bits);
    }
  });
}

void run_shared(const Task& task, const std::int64_t begin, const std::int64_t end) {
  const TensorIter& iter = task.iter;
  const Dim& inner = iter.inner();
  const Dim* const next = iter.rank > 1 ? &iter.dims[iter.rank - 2] : nullptr;
  const bool side_by_side = next != nullptr && inner.size < kCell && inner.dst == 1 && inner.src == 1 &&
                            next->dst == inner.size && next->src == inner.size;
  ElementBits elements(task, next != nullptr && next->mask == 1);
  ShortRows short_rows(task);
  EqualRows equal_rows(task);
  for_rows(iter, begin, end, [&](const Place& row, const std::int64_t first, const std::int64_t n) {
    const std::int64_t dst = row.dst + first * inner.dst, src = row.src + first * inner.src;
    const bool keep = elements.kept(row.mask);
    if (side_by_side) {
      short_rows.add(dst, src, n, keep);
    } else {
      equal_rows.add(dst, src, n, keep);
    }
  });
}

void run_scattered(const Task& task, const std::int64_t begin, const std::int64_t end) {
  const Dim& inner = task.iter.inner();
  for_rows(task.iter, begin, end, [&](const Place& row, const std::int64_t first, const std::int64_t n) {
    for (std::int64_t i = first; i < first + n; i += kCell) {
      const std::int64_t some = std::min(kCell, first + n - i);
      std::uint64_t bits = 0;
      for (std::int64_t k = 0; k < some; ++k) {
        const std::uint64_t index = row.mask + static_cast<std::uint64_t>((i + k) * inner.mask);
        bits |= std::uint64_t{kept(index, task.keys)} << k;
      }
      task.apply(row.dst + i * inner.dst, row.src + i * inner.src, some, &bits);
    }
  });
}

void run_noisy(const Task& task, const std::int64_t begin, const std::int64_t end) {
  constexpr std::int64_t most = 1 << 10;  // elements whose words are stored at once
  const Dim& inner = task.iter.inner();
  std::uint32_t buffer[most + kSpareWords];
  for_rows(task.iter, begin, end, [&](const Place& row, const std::int64_t first, const std::int64_t n) {
    for (std::int64_t i = first; i < first + n; i += most) {
      const std::int64_t some = std::min(most, first + n - i);
      const std::uint64_t index = row.mask + static_cast<std::uint64_t>(i * inner.mask);
      const std::uint32_t* words = buffer;
      if (inner.mask == 1) {
        words = task.isa.words(buffer, some, index, task.keys);
      } else if (inner.mask == 0) {
        std::fill_n(buffer, some, mask_words(task.keys.first + index / 4, task.keys)[index % 4]);
      } else {
        for (std::int64_t k = 0; k < some; ++k) {
          const std::uint64_t at = index + static_cast<std::uint64_t>(k * inner.mask);
          buffer[k] = mask_words(task.keys.first + at / 4, task.keys)[at % 4];
        }
      }
      task.rows.noisy(task.to(row.dst + i * inner.dst), inner.dst, task.from(row.src + i * inner.src), inner.src, some, words,
                      task.call.noise);
    }
  });
}

}  // namespace dropkit

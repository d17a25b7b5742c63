// Calls with a key for each slice of a tensor: slice by slice, or a few short slices at a time.
#include <algorithm>

#include "driver.h"

namespace dropkit {
namespace {

// At least this many elements make a slice worth dividing between threads, which else get whole slices.
constexpr std::int64_t kLongSlice = 4 * kSerial;

// A call cut into slices.
struct Slices {
  const Call& call;
  const Isa& isa;
  TensorIter outer, inner;  // the dimensions that choose a key, and those of a slice, coalesced
  Dim keys[kMaxDims];       // of `outer`: where a slice's key lies, as `dst`
  Dim column{};             // the same for the last dimension of `inner` where that chooses a key, too; of size 0 elsewhere
  bool are_short;           // each slice lies in one piece, next to the one before, and a word holds its keep bits

  Slices(const Call& whole, const TensorIter& iter, const Isa& by) : call(whole), isa(by) {
    const SliceKeys& slices = *call.slices;
    outer.rank = slices.rank;
    outer.mask_offset = iter.mask_offset;
    inner.rank = iter.rank - slices.rank;
    std::copy_n(iter.dims, outer.rank, outer.dims);
    std::copy_n(iter.dims + outer.rank, inner.rank, inner.dims);
    for (int d = 0; d < outer.rank; ++d) keys[d] = {outer.dims[d].size, slices.strides[d], 0, 0};
    coalesce(inner);
    if (!call.is_noise) walk_along_memory();
    const Dim& row = inner.inner();
    const bool dense = row.mask == 1 && row.dst == 1 && row.src == 1;
    are_short = !call.is_noise && inner.rank == 1 && (row.size == 1 || (row.size < kCell && dense));
  }

 private:
  // Where the elements of a slice lie further apart than slices do, tiles serve the slices along that dimension together.
  void walk_along_memory() {
    if (outer.rank == 0) return;
    const auto nearer = [](const Dim& a, const Dim& b) { return b.size == 1 || (a.size > 1 && a.dst < b.dst); };
    const auto nearest = std::min_element(outer.dims, outer.dims + outer.rank, nearer) - outer.dims;
    const bool has_runs = std::any_of(inner.dims, inner.dims + inner.rank, [](const Dim& d) { return d.mask == 1 && d.size > 1; });
    if (!has_runs || outer.dims[nearest].size == 1 || outer.dims[nearest].dst >= inner.inner().dst) return;
    column = keys[nearest];
    inner.dims[inner.rank++] = outer.dims[nearest];
    std::copy(outer.dims + nearest + 1, outer.dims + outer.rank, outer.dims + nearest);
    std::copy(keys + nearest + 1, keys + outer.rank, keys + nearest);
    --outer.rank;
  }
};

// Steps through the slices of a call: where each begins, and its key.
class SliceOdometer {
 public:
  SliceOdometer(const Slices& slices, const std::int64_t index)
      : places_(slices.outer.dims, slices.outer.rank, slices.outer.mask_offset, index),
        keys_(slices.keys, slices.outer.rank, 0, index) {}

  const Place& place() const { return places_.place(); }
  std::int64_t key() const { return keys_.place().dst; }

  void advance() {
    places_.advance();
    keys_.advance();
  }

 private:
  Odometer places_, keys_;
};

// Short slices that lie side by side are dropped as one row.
void drop_short(const Slices& slices, const std::int64_t begin, const std::int64_t end) {
  const Call& call = slices.call;
  const auto dtype = static_cast<int>(call.dtype);
  const Rows& rows = slices.isa.rows[dtype][call.affine.shift != 0];
  const std::int64_t size = slices.inner.inner().size, bytes = kBytes[dtype];
  std::uint64_t bits[kMaxRow / kCell + 1] = {};
  BitWriter writer(bits);
  Place start;
  const auto flush = [&] {
    if (writer.size() == 0) return;
    rows.masked(static_cast<char*>(call.dst) + start.dst * bytes, 1, static_cast<const char*>(call.src) + start.src * bytes, 1,
                writer.size(), bits, call.affine);
    writer.clear();
  };
  const SliceKeys& numbers = *call.slices;
  SliceOdometer at(slices, begin);
  for (std::int64_t i = begin; i < end; ++i, at.advance()) {
    const Place& place = at.place();
    const bool runs_on = place.dst == start.dst + writer.size() && place.src == start.src + writer.size();
    if (!runs_on || writer.size() + size > kMaxRow) flush();
    if (writer.size() == 0) start = place;
    const Schedule keys(numbers.keys[at.key()], numbers.first_block(at.key()), static_cast<std::uint32_t>(call.threshold));
    std::uint64_t keep;
    slices.isa.bits(&keep, size, place.mask, keys);
    writer.append(keep & ~std::uint64_t{0} >> (kCell - size), size);
  }
  flush();
}

// False where the pool failed.
bool drop_each(const Slices& slices, const std::int64_t begin, const std::int64_t end, const ParallelFor pool) {
  TensorIter iter = slices.inner;
  Call call = slices.call;
  const SliceKeys& numbers = *call.slices;
  const std::int64_t bytes = kBytes[static_cast<int>(call.dtype)];
  SliceKeys columns;
  columns.strides[0] = slices.column.dst;
  SliceOdometer at(slices, begin);
  for (std::int64_t i = begin; i < end; ++i, at.advance()) {
    call.dst = static_cast<char*>(slices.call.dst) + at.place().dst * bytes;
    call.src = static_cast<const char*>(slices.call.src) + at.place().src * bytes;
    iter.mask_offset = at.place().mask;
    if (slices.column.size > 0) {
      columns.keys = numbers.keys + at.key();
      columns.first_blocks = numbers.first_blocks == nullptr ? nullptr : numbers.first_blocks + at.key();
      call.columns = &columns;
    } else {
      call.key = numbers.keys[at.key()];
      call.first_block = numbers.first_block(at.key());
    }
    if (!drop_by_one_key(call, iter, slices.isa, pool)) return false;
  }
  return true;
}

}  // namespace

bool drop_slices(const Call& call, const TensorIter& iter, const Isa& isa, const ParallelFor pool) {
  Slices slices(call, iter, isa);
  const std::int64_t units = slices.outer.count(), elements = slices.inner.count();
  const auto body = [](const std::int64_t begin, const std::int64_t end, void* const context) {
    const Slices& all = *static_cast<const Slices*>(context);
    if (all.are_short) {
      drop_short(all, begin, end);
    } else {
      drop_each(all, begin, end, nullptr);
    }
  };
  if (pool != nullptr && (elements >= kLongSlice || units == 1)) return drop_each(slices, 0, units, pool);
  if (pool == nullptr || units * elements < kSerial) {
    body(0, units, &slices);
    return true;
  }
  return pool(0, units, std::max<std::int64_t>(1, kSerial / elements), body, &slices) == 0;
}

}  // namespace dropkit

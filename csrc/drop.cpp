#include "drop.h"

#include <algorithm>
#include <utility>

#include "driver.h"
#include "platform.h"

namespace dropkit {
namespace {

// The driver of a call, and its work: how many units of how many elements.
struct Plan {
  Run run;
  std::int64_t units, elements;
};

// Moves the dimension of mask stride 1 next to the inner one; false if there is none.
bool bring_mask_inward(TensorIter& iter) {
  Dim* const first = iter.dims;
  Dim* const inner = first + iter.rank - 1;
  Dim* const along = std::find_if(first, inner, [](const Dim& d) { return d.mask == 1; });
  if (along == inner) return false;
  std::rotate(along, along + 1, inner);
  return true;
}

Plan make_plan(const Call& call, TensorIter& iter) {
  const std::int64_t count = iter.count(), cells = (count + kCell - 1) / kCell;
  if (call.is_noise) return {run_noisy, cells, kCell};
  if (call.columns == nullptr) {
    if (repeats(iter)) return {run_repeating, cells, kCell};
    if (iter.inner().mask == 1) return {run_consecutive, cells, kCell};
    if (widens(iter)) {
      const std::int64_t width = iter.inner().size;
      return {run_widened, (count / width + kCell - 1) / kCell, kCell * width};
    }
    if (iter.inner().mask == 0) return {run_shared, cells, kCell};
  }
  if (!bring_mask_inward(iter)) return {run_scattered, cells, kCell};
  const Tiles tiles(iter);
  const std::int64_t planes = count / iter.inner().size / iter.dims[iter.rank - 2].size;
  return {run_tiles, planes * tiles.mask_tiles * tiles.memory_tiles, tiles.mask_size * tiles.memory_size};
}

}  // namespace

bool drop_by_one_key(const Call& call, TensorIter& iter, const Isa& isa, const ParallelFor pool) {
  const Plan plan = make_plan(call, iter);
  const Schedule keys(call.key, call.first_block, static_cast<std::uint32_t>(call.threshold));
  const auto dtype = static_cast<int>(call.dtype);
  const bool shifted = call.affine.shift != 0;
  const Task task{call, iter, isa, keys, isa.rows[dtype][shifted], kBytes[dtype]};
  if (pool == nullptr || iter.count() < kSerial) {
    plan.run(task, 0, plan.units);
    return true;
  }
  using Work = std::pair<const Plan&, const Task&>;
  Work work{plan, task};
  const auto body = [](const std::int64_t begin, const std::int64_t end, void* const context) {
    const auto& [the_plan, the_task] = *static_cast<const Work*>(context);
    the_plan.run(the_task, begin, end);
  };
  const std::int64_t grain = std::max<std::int64_t>(1, kSerial / plan.elements);
  return pool(0, plan.units, grain, body, &work) == 0;
}

bool drop(const Call& call, TensorIter iter, const Isa& isa, const ParallelFor pool) {
  const bool drops_all = call.threshold >> 32 != 0;
  if (drops_all) {
    // One mask element will do, and any key.
    for (int d = 0; d < iter.rank; ++d) iter.dims[d].mask = 0;
  }
  const std::int64_t count = iter.count();
  if (count == 0) return true;
  if (call.dst != call.src) ask_for_huge_pages(call.dst, count * kBytes[static_cast<int>(call.dtype)]);
  if (call.slices != nullptr && !drops_all) return drop_slices(call, iter, isa, pool);
  if (call.add == nullptr) coalesce(iter);
  return drop_by_one_key(call, iter, isa, pool);
}

}  // namespace dropkit

#include "drop.h"

#include <algorithm>
#include <utility>

#include "run.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace dropkit {
namespace {

constexpr std::int64_t kSerial = 1 << 15;  // below this many elements the pool costs more than it gives

// In how many units of how many elements a walk is run.
struct Plan {
  Run run;
  std::int64_t units, elements;
};

// Moves the dimension along which the coins are consecutive behind all but the inner one.
bool bring_coins_inward(Walk& walk) {
  Dim* const first = walk.dims;
  Dim* const inner = first + walk.rank - 1;
  Dim* const along = std::find_if(first, inner, [](const Dim& d) { return d.coin == 1; });
  if (along == inner) return false;
  std::rotate(along, along + 1, inner);
  return true;
}

Plan make_plan(Walk& walk) {
  const std::int64_t count = walk.count(), cells = (count + kCell - 1) / kCell;
  if (repeats(walk)) return {run_repeating, cells, kCell};
  if (walk.inner().coin == 1) return {run_consecutive, cells, kCell};
  if (walk.inner().coin == 0) return {run_shared, cells, kCell};
  if (!bring_coins_inward(walk)) return {run_scattered, cells, kCell};
  const Tiles tiles(walk);
  const std::int64_t planes = count / walk.inner().size / walk.dims[walk.rank - 2].size;
  return {run_tiles, planes * tiles.coin_tiles * tiles.run_tiles, tiles.coins * tiles.run};
}

// Fresh memory of this size is mapped page by page as it is written; huge pages make that 512 times fewer faults.
void ask_for_huge_pages([[maybe_unused]] const Call& call, [[maybe_unused]] const std::int64_t bytes) {
#if defined(__linux__)
  constexpr std::uintptr_t huge = std::uintptr_t{1} << 21;
  if (call.dst == call.src || bytes < static_cast<std::int64_t>(2 * huge)) return;
  const auto begin = (reinterpret_cast<std::uintptr_t>(call.dst) + huge - 1) & ~(huge - 1);
  const auto end = (reinterpret_cast<std::uintptr_t>(call.dst) + static_cast<std::uintptr_t>(bytes)) & ~(huge - 1);
  // A refusal changes nothing but the speed.
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

}  // namespace

bool drop(const Call& call, Walk walk, const Level& level, const ParallelFor pool) {
  if (call.threshold >> 32 != 0) {
    // Every coin drops: one of them serves all.
    for (int d = 0; d < walk.rank; ++d) walk.dims[d].coin = 0;
  }
  if (call.add == nullptr) straighten(walk);
  const std::int64_t count = walk.count();
  if (count == 0) return true;
  const Plan plan = make_plan(walk);
  const Schedule keys(call.key, static_cast<std::uint32_t>(call.threshold));
  const auto dtype = static_cast<int>(call.dtype);
  const bool shifted = call.values.shift != 0;
  const Task task{call, walk, level, keys, level.rows[dtype][shifted], kBytes[dtype]};
  ask_for_huge_pages(call, count * task.bytes);
  if (pool == nullptr || count < kSerial) {
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

}  // namespace dropkit

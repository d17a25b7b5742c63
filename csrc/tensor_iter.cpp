#include "tensor_iter.h"

#include <algorithm>

namespace dropkit {

std::int64_t TensorIter::count() const {
  std::int64_t n = 1;
  for (int d = 0; d < rank; ++d) n *= dims[d].size;
  return n;
}

void coalesce(TensorIter& iter) {
  Dim* const first = iter.dims;
  Dim* last = std::remove_if(first, first + iter.rank, [](const Dim& d) { return d.size == 1; });
  std::stable_sort(first, last, [](const Dim& a, const Dim& b) { return a.dst > b.dst; });
  if (first == last) *last++ = {1, 1, 1, 0};
  Dim* kept = first;
  for (const Dim* next = first + 1; next < last; ++next) {
    const bool runs_on = kept->dst == next->size * next->dst && kept->src == next->size * next->src &&
                         kept->mask == next->size * next->mask;
    if (runs_on) {
      *kept = {kept->size * next->size, next->dst, next->src, next->mask};
    } else {
      *++kept = *next;
    }
  }
  iter.rank = static_cast<int>(kept - first) + 1;
}

}  // namespace dropkit

// Runs calls that are read from standard input on one instruction set, for processors that are emulated.
//
// Argument: the level. A call is 8 numbers (dtype, key, threshold, base, elements stored, and the bits of scale, shift
// and fill as doubles), the rank, four numbers for each dimension (size, output stride, input stride, coin step), and
// the stored elements. Answer: as many stored elements. Numbers are 64-bit, in the byte order of the machine.
#include <cstdio>
#include <cstring>
#include <vector>

#include "dispatch.h"
#include "drop.h"

namespace {

template <class T>
bool read(T& number) {
  return std::fread(&number, sizeof number, 1, stdin) == 1;
}

const dropkit::Level* find(const char* const name) {
  for (const dropkit::Level* const level : dropkit::levels) {
    if (std::strcmp(level->name, name) == 0 && level->runs_here()) return level;
  }
  return nullptr;
}

}  // namespace

int main(const int count, char** const arguments) {
  const dropkit::Level* const level = count == 2 ? find(arguments[1]) : nullptr;
  if (level == nullptr) return 2;
  std::int64_t dtype = 0, stored = 0, rank = 0;
  dropkit::Call call;
  dropkit::Walk walk;
  while (read(dtype)) {
    call.dtype = static_cast<dropkit::Dtype>(dtype);
    bool whole = read(call.key) && read(call.threshold) && read(walk.base) && read(stored) && read(call.values) && read(rank);
    for (std::int64_t d = 0; d < rank; ++d) whole = whole && read(walk.dims[d]);
    walk.rank = static_cast<int>(rank);
    const auto bytes = static_cast<std::size_t>(stored * dropkit::kBytes[dtype]);
    std::vector<char> input(bytes), output(bytes);
    if (!whole || std::fread(input.data(), 1, bytes, stdin) != bytes) return 3;
    call.src = input.data();
    call.dst = output.data();
    dropkit::drop(call, walk, *level, nullptr);
    std::fwrite(output.data(), 1, bytes, stdout);
  }
  return 0;
}

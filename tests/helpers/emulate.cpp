// Runs dropout calls from standard input on one instruction set, for emulated processors.
//
// Argument: the instruction set. A call is 8 numbers (dtype, key, threshold, mask offset, elements stored, and the bits of
// scale, shift and fill as doubles), the rank, four numbers for each dimension (size, output stride, input stride, mask
// stride), and the stored elements. Where the threshold is beyond 2**32, by 1 for normal numbers and by 2 for uniform ones,
// the call is one of noise, with the factor and the term in the place of scale and shift. Output: as many stored elements. Numbers are 64-bit, in the machine's byte order.
#include <cstdio>
#include <cstring>
#include <vector>

#include "isa.h"
#include "drop.h"

namespace {

template <class T>
bool read(T& number) {
  return std::fread(&number, sizeof number, 1, stdin) == 1;
}

const dropkit::Isa* find(const char* const name) {
  for (const dropkit::Isa* const isa : dropkit::isas) {
    if (std::strcmp(isa->name, name) == 0 && isa->runs_here()) return isa;
  }
  return nullptr;
}

}  // namespace

int main(const int count, char** const arguments) {
  const dropkit::Isa* const isa = count == 2 ? find(arguments[1]) : nullptr;
  if (isa == nullptr) return 2;
  std::int64_t dtype = 0, stored = 0, rank = 0;
  dropkit::Call call;
  dropkit::TensorIter iter;
  while (read(dtype)) {
    call.dtype = static_cast<dropkit::Dtype>(dtype);
    bool whole = read(call.key) && read(call.threshold) && read(iter.mask_offset) && read(stored) && read(call.affine) && read(rank);
    call.is_noise = call.threshold > std::uint64_t{1} << 32;
    if (call.is_noise) {
      const bool is_normal = call.threshold == (std::uint64_t{1} << 32) + 1;
      call.noise = {is_normal ? dropkit::Distribution::normal : dropkit::Distribution::uniform, call.affine.scale,
                    call.affine.shift};
      call.threshold = 0;
    }
    for (std::int64_t d = 0; d < rank; ++d) whole = whole && read(iter.dims[d]);
    iter.rank = static_cast<int>(rank);
    const auto bytes = static_cast<std::size_t>(stored * dropkit::kBytes[dtype]);
    std::vector<char> input(bytes), output(bytes);
    if (!whole || std::fread(input.data(), 1, bytes, stdin) != bytes) return 3;
    call.src = input.data();
    call.dst = output.data();
    dropkit::drop(call, iter, *isa, nullptr);
    std::fwrite(output.data(), 1, bytes, stdout);
  }
  return 0;
}

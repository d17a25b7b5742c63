// The instruction sets of this build, best first.
#pragma once

#include <array>

#include "isa.h"

namespace dropkit {

#if defined(__x86_64__)
inline constexpr std::array<const Isa*, 3> isas{&avx512_isa, &avx2_isa, &scalar_isa};
#elif defined(__aarch64__)
inline constexpr std::array<const Isa*, 2> isas{&neon_isa, &scalar_isa};
#else
inline constexpr std::array<const Isa*, 1> isas{&scalar_isa};
#endif

inline const Isa* best_isa() {
  for (const Isa* const isa : isas) {
    if (isa->runs_here()) return isa;
  }
  return &scalar_isa;
}

}  // namespace dropkit

// The levels that this build holds, best first, and the one in use.
#pragma once

#include <array>

#include "level.h"

namespace dropkit {

#if defined(__x86_64__)
inline constexpr std::array<const Level*, 3> levels{&avx512_level, &avx2_level, &scalar_level};
#elif defined(__aarch64__)
inline constexpr std::array<const Level*, 2> levels{&neon_level, &scalar_level};
#else
inline constexpr std::array<const Level*, 1> levels{&scalar_level};
#endif

inline const Level* best_level() {
  for (const Level* const level : levels) {
    if (level->runs_here()) return level;
  }
  return &scalar_level;
}

}  // namespace dropkit

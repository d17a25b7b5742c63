// What compilers and operating systems name differently: GCC, Clang and Microsoft's compiler; Linux, macOS and Windows.
#pragma once

#include <cstdint>

#if defined(_WIN32)
#include <intrin.h>
#else
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__) && !defined(_MSC_VER)
#include <cpuid.h>
#endif

namespace dropkit {

// Runs `body` in every forked child from now on; false where the system refuses. Windows has no fork.
inline bool run_in_forked_children([[maybe_unused]] void (*const body)()) {
#if defined(_WIN32)
  return true;
#else
  return pthread_atfork(nullptr, nullptr, body) == 0;
#endif
}

// Fresh memory is mapped page by page as it is written; huge pages make that 512 times fewer faults.
inline void ask_for_huge_pages([[maybe_unused]] void* const memory, [[maybe_unused]] const std::int64_t bytes) {
#if defined(__linux__)
  constexpr std::uintptr_t huge = std::uintptr_t{1} << 21;
  if (bytes < static_cast<std::int64_t>(2 * huge)) return;
  const auto begin = (reinterpret_cast<std::uintptr_t>(memory) + huge - 1) & ~(huge - 1);
  const auto end = (reinterpret_cast<std::uintptr_t>(memory) + static_cast<std::uintptr_t>(bytes)) & ~(huge - 1);
  // A refusal changes nothing but the speed.
  (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Starts to load the cache line at an address.
#if defined(_MSC_VER) && defined(_M_X64)
inline void prefetch(const void* const at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T0); }
#elif defined(_MSC_VER)
inline void prefetch(const void* const at) { __prefetch(at); }
#else
inline void prefetch(const void* const at) { __builtin_prefetch(at); }
#endif

// Whether the processor has the instructions that avx2.cpp and avx512.cpp use, and the system saves their registers.
#if defined(_MSC_VER) && defined(_M_X64)
inline bool has_bit(const int leaf, const int place, const int bit) {
  int highest[4], answer[4];  // eax, ebx, ecx, edx
  __cpuid(highest, 0);
  if (highest[0] < leaf) return false;
  __cpuidex(answer, leaf, 0);
  return (answer[place] >> bit & 1) != 0;
}

inline bool saves_registers(const unsigned long long kinds) {
  return has_bit(1, 2, 27) && (_xgetbv(0) & kinds) == kinds;
}

inline bool has_avx2() { return saves_registers(0x06) && has_bit(1, 2, 29) && has_bit(7, 1, 5); }  // F16C, AVX2

inline bool has_avx512() {
  return saves_registers(0xE6) && has_bit(7, 1, 16) && has_bit(7, 1, 17) && has_bit(7, 1, 30) && has_bit(7, 1, 31);  // F, DQ, BW, VL
}
#elif defined(__x86_64__)
inline bool has_avx2() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

inline bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
#endif

}  // namespace dropkit

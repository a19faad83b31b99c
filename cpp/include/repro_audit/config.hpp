// What lets one definition of the arithmetic compile under g++, clang, nvcc and NVRTC.
#pragma once

#if defined(__CUDACC_RTC__)
// NVRTC has no <cstdint>; these are the widths CUDA guarantees.
using int64_t = long long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
namespace std {
using ::int64_t;
using ::uint16_t;
using ::uint32_t;
using ::uint64_t;
using ::uint8_t;
}  // namespace std
#else
#include <cstdint>
#endif

// Always inlined on the host, because avx2.cpp is compiled with -mavx2: an out-of-line copy of a
// header function made there could be the one that the linker keeps for every other file, and a
// machine without AVX2 would die of it.
#if defined(__CUDACC__)
#define REPRO_AUDIT_FN __host__ __device__ __forceinline__
#define REPRO_AUDIT_CALLED __host__ __device__ __noinline__
#define REPRO_AUDIT_UNROLL _Pragma("unroll")
#define REPRO_AUDIT_ROLLED _Pragma("unroll 1")
#else
#define REPRO_AUDIT_FN [[gnu::always_inline]] inline
#define REPRO_AUDIT_CALLED [[gnu::always_inline]] inline
#define REPRO_AUDIT_UNROLL
#define REPRO_AUDIT_ROLLED
#endif

namespace repro_audit {

using i64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

}  // namespace repro_audit

// What the two files of AVX-512 kernels share.
#pragma once

#include <immintrin.h>

#include "kernels.hpp"

namespace repro_audit {

// Sum modulo 2^64 of the eight parts: GCC's own reduction adds signed numbers, which may not wrap.
[[gnu::always_inline]] inline u64 total_of(__m512i parts) {
  const __m256i half =
      _mm256_add_epi64(_mm512_castsi512_si256(parts), _mm512_extracti64x4_epi64(parts, 1));
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return static_cast<u64>(_mm_cvtsi128_si64(two)) + static_cast<u64>(_mm_extract_epi64(two, 1));
}

// As Kernels::divergence; avx512_divergence.cpp.
u64 avx512_divergence(Tag tag, const u8* a, const u8* b, u64 first, u64 count, Divergence& result);

}  // namespace repro_audit

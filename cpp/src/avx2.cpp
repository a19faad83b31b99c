// AVX2 kernels, SPEC.md section 5; compiled with -mavx2, so nothing here may be called before
// `supported()` said yes. All loads are unaligned; nothing is read outside the words given.
//
// Products go to 64-bit lanes and are added modulo 2^64, so neither the order of the words nor
// their split over the vector's lanes changes the sums.
#include <immintrin.h>

#include <cstring>

#include "kernels.hpp"

namespace repro_audit {
namespace {

bool supported() { return __builtin_cpu_supports("avx2") != 0; }

[[gnu::always_inline]] inline __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

struct Keys8 {
  __m256i even0, odd0, even1, odd1;

  [[gnu::always_inline]] static inline Keys8 at(const KeyTable& keys, u64 pair) {
    return {load(keys.even[0] + pair), load(keys.odd[0] + pair), load(keys.even[1] + pair),
            load(keys.odd[1] + pair)};
  }
};

// Sums of one stream, in four 64-bit parts a lane.
struct Sums {
  __m256i s0 = _mm256_setzero_si256();
  __m256i s1 = _mm256_setzero_si256();

  [[gnu::always_inline]] inline void add(__m256i w, const Keys8& k) {
    // Halves of each word exchanged, even and odd words.
    const __m256i exchange = _mm256_setr_epi8(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13,
                                              2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    const __m256i x = _mm256_shuffle_epi8(w, exchange);
    s0 = _mm256_add_epi64(s0, _mm256_mul_epu32(w, k.even0));
    s1 = _mm256_add_epi64(s1, _mm256_mul_epu32(x, k.even1));
    s0 = _mm256_add_epi64(s0, _mm256_mul_epu32(_mm256_srli_epi64(w, 32), k.odd0));
    s1 = _mm256_add_epi64(s1, _mm256_mul_epu32(_mm256_srli_epi64(x, 32), k.odd1));
  }

  [[gnu::always_inline]] inline Lanes total() const {
    // {s0 a+b, s1 a+b, s0 c+d, s1 c+d}, then the halves.
    const __m256i pairs =
        _mm256_add_epi64(_mm256_unpacklo_epi64(s0, s1), _mm256_unpackhi_epi64(s0, s1));
    const __m128i sum =
        _mm_add_epi64(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    return {static_cast<u64>(_mm_cvtsi128_si64(sum)), static_cast<u64>(_mm_extract_epi64(sum, 1))};
  }
};

Lanes words(const u8* p, u64 j, u64 count, const KeyTable& keys) {
  Lanes sum;
  const auto scalar = [&] {
    u32 w;
    std::memcpy(&w, p, 4);
    sum.l0 += u64{keys.word[0][j]} * w;
    sum.l1 += u64{keys.word[1][j]} * exchange_halves(w);
    p += 4;
    ++j;
    --count;
  };
  if (j % 2 != 0 && count != 0) scalar();
  if (count >= 8) {
    Sums sums;
    for (; count >= 8; p += 32, j += 8, count -= 8) sums.add(load(p), Keys8::at(keys, j / 2));
    sum += sums.total();
  }
  while (count != 0) scalar();
  return sum;
}

// How far ahead of what is read its lines are asked for; the same in both functions, so that none
// is left out between them.
constexpr u64 kAhead = 8192;

// One block after the other.
Lanes one_stream(const u8* p, u64 first, u64 count, const KeyTable& keys) {
  Lanes sum;
  for (u64 i = 0; i < count; ++i, p += kBlockBytes) {
    Sums sums;
    for (u64 v = 0; v < kBlockWords / 8; v += 2) {
      __builtin_prefetch(p + 32 * v + kAhead);
      sums.add(load(p + 32 * v), Keys8::at(keys, 4 * v));
      sums.add(load(p + 32 * v + 32), Keys8::at(keys, 4 * v + 4));
    }
    sum += weigh(sums.total(), keys.base, first + i);
  }
  return sum;
}

// Three neighbouring blocks, so that one load of the keys serves a vector of each; with four, the
// sums and keys no longer fit the 16 registers. The prefetcher does not see through three places
// 1 KiB apart, so the lines to come are asked for in their order.
Lanes three_blocks(const u8* p, u64 first, const KeyTable& keys) {
  Sums a, b, c;
  for (u64 v = 0; v < kBlockWords / 8; ++v) {
    const Keys8 k = Keys8::at(keys, 4 * v);
    const u8* at = p + 32 * v;
    if (v % 2 == 0) {
      for (u64 line = 0; line < 3; ++line) {
        __builtin_prefetch(p + kAhead + 64 * (v / 2 * 3 + line));
      }
    }
    a.add(load(at), k);
    b.add(load(at + kBlockBytes), k);
    c.add(load(at + 2 * kBlockBytes), k);
  }
  Lanes sum = weigh(a.total(), keys.base, first);
  sum += weigh(b.total(), keys.base, first + 1);
  return sum += weigh(c.total(), keys.base, first + 2);
}

Lanes blocks(const u8* p, u64 first, u64 count, const KeyTable& keys) {
  Lanes sum;
  for (; count >= 3; p += 3 * kBlockBytes, first += 3, count -= 3) {
    sum += three_blocks(p, first, keys);
  }
  return sum += one_stream(p, first, count, keys);
}

u64 equal_prefix(const u8* a, const u8* b, u64 nbytes) {
  constexpr u64 kStep = 128;
  u64 at = 0;
  for (; nbytes - at >= kStep; at += kStep) {
    __m256i differing = _mm256_setzero_si256();
    for (u64 i = 0; i < kStep; i += 32) {
      differing = _mm256_or_si256(differing, _mm256_xor_si256(load(a + at + i), load(b + at + i)));
    }
    if (_mm256_testz_si256(differing, differing) == 0) break;
  }
  return at;
}

u64 read_sum(const u8* p, u64 nbytes) {
  __m256i sum[4] = {};
  u64 at = 0;
  for (; at + 128 <= nbytes; at += 128) {
    for (u64 i = 0; i < 4; ++i) sum[i] = _mm256_add_epi64(sum[i], load(p + at + 32 * i));
  }
  const __m256i all =
      _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  alignas(32) u64 parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), all);
  u64 total = parts[0] + parts[1] + parts[2] + parts[3];
  for (; at + 8 <= nbytes; at += 8) {
    u64 word;
    std::memcpy(&word, p + at, 8);
    total += word;
  }
  return total;
}

}  // namespace

const Kernels kAvx2 = {"avx2",   supported,         words,  blocks, equal_prefix,
                       read_sum, portable_multiset, nullptr};

}  // namespace repro_audit

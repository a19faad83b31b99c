// AVX-512 kernels, SPEC.md sections 5 and 7; compiled with -mavx512f, bw, vl, cd and dq, so nothing
// here may be called before `supported()` said yes. Loads are unaligned, or masked at the ends of
// runs; nothing is read outside the words given.
//
// Products go to 64-bit lanes and are added modulo 2^64, so neither the order of the words nor
// their split over the vector's lanes changes the sums.
#include "avx512.hpp"

#include <cstring>

namespace repro_audit {
namespace {

bool supported() {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512cd") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0;
}

[[gnu::always_inline]] inline __m512i load(const void* p) { return _mm512_loadu_si512(p); }

// Keys of sixteen words, even and odd words apart.
struct Keys16 {
  __m512i even0, odd0, even1, odd1;

  [[gnu::always_inline]] static inline Keys16 at(const KeyTable& keys, u64 pair) {
    return {load(keys.even[0] + pair), load(keys.odd[0] + pair), load(keys.even[1] + pair),
            load(keys.odd[1] + pair)};
  }

  [[gnu::always_inline]] static inline Keys16 at(const KeyTable& keys, u64 pair, __mmask8 pairs) {
    return {_mm512_maskz_loadu_epi64(pairs, keys.even[0] + pair),
            _mm512_maskz_loadu_epi64(pairs, keys.odd[0] + pair),
            _mm512_maskz_loadu_epi64(pairs, keys.even[1] + pair),
            _mm512_maskz_loadu_epi64(pairs, keys.odd[1] + pair)};
  }
};

// Sums of one stream, in eight 64-bit parts a lane.
struct Sums {
  __m512i s0 = _mm512_setzero_si512();
  __m512i s1 = _mm512_setzero_si512();

  [[gnu::always_inline]] inline void add(__m512i w, const Keys16& k) {
    const __m512i x = _mm512_rol_epi32(w, 16);
    s0 = _mm512_add_epi64(s0, _mm512_mul_epu32(w, k.even0));
    s1 = _mm512_add_epi64(s1, _mm512_mul_epu32(x, k.even1));
    s0 = _mm512_add_epi64(s0, _mm512_mul_epu32(_mm512_srli_epi64(w, 32), k.odd0));
    s1 = _mm512_add_epi64(s1, _mm512_mul_epu32(_mm512_srli_epi64(x, 32), k.odd1));
  }

  [[gnu::always_inline]] inline Lanes total() const {
    // {s0, s1} in turn: their eight parts folded to four, two, one together.
    const __m512i pairs =
        _mm512_add_epi64(_mm512_unpacklo_epi64(s0, s1), _mm512_unpackhi_epi64(s0, s1));
    const __m256i half =
        _mm256_add_epi64(_mm512_castsi512_si256(pairs), _mm512_extracti64x4_epi64(pairs, 1));
    const __m128i sum =
        _mm_add_epi64(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return {static_cast<u64>(_mm_cvtsi128_si64(sum)), static_cast<u64>(_mm_extract_epi64(sum, 1))};
  }
};

Lanes words(const u8* p, u64 j, u64 count, const KeyTable& keys) {
  Lanes sum;
  if (count == 0) return sum;
  if (j % 2 != 0) {
    u32 w;
    std::memcpy(&w, p, 4);
    sum.l0 += u64{keys.word[0][j]} * w;
    sum.l1 += u64{keys.word[1][j]} * exchange_halves(w);
    p += 4;
    ++j;
    --count;
  }
  Sums sums;
  for (; count >= 16; p += 64, j += 16, count -= 16) sums.add(load(p), Keys16::at(keys, j / 2));
  if (count != 0) {
    const __mmask16 present = static_cast<__mmask16>((1U << count) - 1);
    const __mmask8 pairs = static_cast<__mmask8>((1U << ((count + 1) / 2)) - 1);
    sums.add(_mm512_maskz_loadu_epi32(present, p), Keys16::at(keys, j / 2, pairs));
  }
  return sum += sums.total();
}

// How far ahead of what is read the lines of short runs are asked for; the same in both functions,
// so that none is left out between them.
constexpr u64 kAhead = 8192;

// One block after the other.
Lanes one_stream(const u8* p, u64 first, u64 count, const KeyTable& keys) {
  Lanes sum;
  for (u64 i = 0; i < count; ++i, p += kBlockBytes) {
    Sums even;
    Sums odd;
    for (u64 v = 0; v < kBlockWords / 16; v += 2) {
      __builtin_prefetch(p + kAhead + 64 * v);
      __builtin_prefetch(p + kAhead + 64 * v + 64);
      even.add(load(p + 64 * v), Keys16::at(keys, 8 * v));
      odd.add(load(p + 64 * v + 64), Keys16::at(keys, 8 * v + 8));
    }
    Lanes inner = even.total();
    inner += odd.total();
    sum += weigh(inner, keys.base, first + i);
  }
  return sum;
}

// Four streams of `apart` blocks, one behind the other, so that one load of the keys serves four
// vectors. At 64 KiB and more apart the hardware's prefetcher keeps up with all four, and four
// places of memory are read faster than one.
Lanes four_streams(const u8* p, u64 first, u64 apart, const KeyTable& keys) {
  Lanes sum;
  const u64 stride = apart * kBlockBytes;
  for (u64 i = 0; i < apart; ++i, p += kBlockBytes) {
    Sums a, b, c, d;
    for (u64 v = 0; v < kBlockWords / 16; ++v) {
      const Keys16 k = Keys16::at(keys, 8 * v);
      const u8* at = p + 64 * v;
      a.add(load(at), k);
      b.add(load(at + stride), k);
      c.add(load(at + 2 * stride), k);
      d.add(load(at + 3 * stride), k);
    }
    sum += weigh(a.total(), keys.base, first + i);
    sum += weigh(b.total(), keys.base, first + apart + i);
    sum += weigh(c.total(), keys.base, first + 2 * apart + i);
    sum += weigh(d.total(), keys.base, first + 3 * apart + i);
  }
  return sum;
}

// Four neighbouring blocks, for the same reason. From DRAM this is a third of the speed, since the
// prefetcher does not see through it; so the lines to come are asked for in their order.
Lanes four_blocks(const u8* p, u64 first, const KeyTable& keys) {
  Sums a, b, c, d;
  for (u64 v = 0; v < kBlockWords / 16; ++v) {
    const Keys16 k = Keys16::at(keys, 8 * v);
    const u8* at = p + 64 * v;
    for (u64 line = 0; line < 4; ++line) __builtin_prefetch(p + kAhead + 64 * (4 * v + line));
    a.add(load(at), k);
    b.add(load(at + kBlockBytes), k);
    c.add(load(at + 2 * kBlockBytes), k);
    d.add(load(at + 3 * kBlockBytes), k);
  }
  Lanes sum = weigh(a.total(), keys.base, first);
  sum += weigh(b.total(), keys.base, first + 1);
  sum += weigh(c.total(), keys.base, first + 2);
  return sum += weigh(d.total(), keys.base, first + 3);
}

Lanes blocks(const u8* p, u64 first, u64 count, const KeyTable& keys) {
  constexpr u64 kLeastApart = 64;
  // Large powers of two apart meet in one bank of DRAM (256 MiB apart: a third of the speed); hence
  // segments.
  constexpr u64 kApart = 260;
  Lanes sum;
  while (count >= 4 * kLeastApart) {
    const u64 apart = count / 4 < kApart ? count / 4 : kApart;
    sum += four_streams(p, first, apart, keys);
    p += 4 * apart * kBlockBytes;
    first += 4 * apart;
    count -= 4 * apart;
  }
  for (; count >= 4; p += 4 * kBlockBytes, first += 4, count -= 4) {
    sum += four_blocks(p, first, keys);
  }
  return sum += one_stream(p, first, count, keys);
}

u64 equal_prefix(const u8* a, const u8* b, u64 nbytes) {
  constexpr u64 kStep = 256;
  u64 at = 0;
  for (; nbytes - at >= kStep; at += kStep) {
    __m512i differing = _mm512_setzero_si512();
    for (u64 i = 0; i < kStep; i += 64) {
      differing = _mm512_or_si512(differing, _mm512_xor_si512(load(a + at + i), load(b + at + i)));
    }
    if (_mm512_test_epi64_mask(differing, differing) != 0) break;
  }
  return at;
}

u64 read_sum(const u8* p, u64 nbytes) {
  __m512i sum[4] = {};
  u64 at = 0;
  for (; at + 256 <= nbytes; at += 256) {
    for (u64 i = 0; i < 4; ++i) sum[i] = _mm512_add_epi64(sum[i], load(p + at + 64 * i));
  }
  const __m512i all =
      _mm512_add_epi64(_mm512_add_epi64(sum[0], sum[1]), _mm512_add_epi64(sum[2], sum[3]));
  u64 total = total_of(all);
  for (; at + 8 <= nbytes; at += 8) {
    u64 word;
    std::memcpy(&word, p + at, 8);
    total += word;
  }
  return total;
}

// Section 7 for eight elements at a time, one a 64-bit lane. Products read the low halves of the
// lanes only, so that what `fold` leaves in the high halves needs no masking.
struct Bag {
  __m512i a, b, kappa;
  __m512i m0 = _mm512_setzero_si512();
  __m512i m1 = _mm512_setzero_si512();

  explicit Bag(const MultisetKeys& keys)
      : a(_mm512_set1_epi64(keys.a)),
        b(_mm512_set1_epi64(keys.b)),
        kappa(_mm512_set1_epi64(keys.kappa)) {}

  [[gnu::always_inline]] static inline __m512i fold(__m512i product) {
    return _mm512_xor_si512(product, _mm512_srli_epi64(product, 32));
  }

  // One half of each element; y and z are those of its previous half, 0 before the first.
  [[gnu::always_inline]] inline void absorb(__m512i half, __m512i& y, __m512i& z,
                                            __mmask8 present) {
    const __m512i lo = _mm512_xor_si512(half, z);
    const __m512i hi = _mm512_xor_si512(_mm512_srli_epi64(half, 32), y);
    y = _mm512_xor_si512(_mm512_xor_si512(hi, kappa), fold(_mm512_mul_epu32(lo, a)));
    z = _mm512_xor_si512(lo, fold(_mm512_mul_epu32(y, b)));
    m0 = _mm512_mask_add_epi64(m0, present, m0, _mm512_mul_epu32(z, z));
    m1 = _mm512_mask_add_epi64(m1, present, m1, _mm512_mul_epu32(y, z));
  }

  [[gnu::always_inline]] inline void add(__m512i elements, __mmask8 present = 0xFF) {
    __m512i y = _mm512_setzero_si512();
    __m512i z = y;
    absorb(elements, y, z, present);
  }

  Lanes total() const { return {total_of(m0), total_of(m1)}; }
};

// Up to eight elements of `itemsize` bytes (1, 2, 4 or 8), zero-extended.
template <u64 kItem>
[[gnu::always_inline]] inline __m512i eight(const u8* p) {
  if constexpr (kItem == 1) {
    return _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  } else if constexpr (kItem == 2) {
    return _mm512_cvtepu16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  } else if constexpr (kItem == 4) {
    return _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  } else {
    return load(p);
  }
}

template <u64 kItem>
Lanes bag_of(const u8* p, u64 count, const MultisetKeys& keys) {
  Bag even(keys);
  Bag odd(keys);
  for (; count >= 16; count -= 16, p += 16 * kItem) {
    even.add(eight<kItem>(p));
    odd.add(eight<kItem>(p + 8 * kItem));
  }
  for (; count != 0;) {
    const u64 now = count < 8 ? count : 8;
    alignas(64) u8 rest[8 * kItem] = {};
    std::memcpy(rest, p, now * kItem);
    even.add(eight<kItem>(rest), static_cast<__mmask8>((1U << now) - 1));
    p += now * kItem;
    count -= now;
  }
  Lanes sum = even.total();
  return sum += odd.total();
}

// Elements of two halves each.
Lanes bag_of_pairs(const u8* p, u64 count, const MultisetKeys& keys) {
  const __m512i firsts = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  const __m512i seconds = _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15);
  Bag bag(keys);
  for (; count != 0;) {
    const u64 now = count < 8 ? count : 8;
    const u8* from = p;
    alignas(64) u8 rest[128] = {};
    if (now < 8) {
      std::memcpy(rest, p, now * 16);
      from = rest;
    }
    const __mmask8 present = static_cast<__mmask8>((1U << now) - 1);
    const __m512i low = load(from);
    const __m512i high = load(from + 64);
    __m512i y = _mm512_setzero_si512();
    __m512i z = y;
    bag.absorb(_mm512_permutex2var_epi64(low, firsts, high), y, z, present);
    bag.absorb(_mm512_permutex2var_epi64(low, seconds, high), y, z, present);
    p += now * 16;
    count -= now;
  }
  return bag.total();
}

Lanes multiset(const u8* p, u64 count, u64 itemsize, const MultisetKeys& keys) {
  switch (itemsize) {
    case 1: return bag_of<1>(p, count, keys);
    case 2: return bag_of<2>(p, count, keys);
    case 4: return bag_of<4>(p, count, keys);
    case 8: return bag_of<8>(p, count, keys);
    default: return bag_of_pairs(p, count, keys);
  }
}

}  // namespace

const Kernels kAvx512 = {"avx512",     supported, words,    blocks,
                         equal_prefix, read_sum,  multiset, avx512_divergence};

}  // namespace repro_audit

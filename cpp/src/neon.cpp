// NEON kernels, SPEC.md section 5, for AArch64, which always has them. All loads are unaligned;
// nothing is read outside the words given.
#include <arm_neon.h>

#include <cstring>

#include "kernels.hpp"

namespace repro_audit {
namespace {

bool supported() { return true; }

// One multiply-add takes two words and their keys as they lie.
struct Sums {
  uint64x2_t s0 = vdupq_n_u64(0);
  uint64x2_t s1 = vdupq_n_u64(0);

  [[gnu::always_inline]] inline void add(uint32x4_t w, const u32* keys0, const u32* keys1) {
    const uint32x4_t x = vreinterpretq_u32_u16(vrev32q_u16(vreinterpretq_u16_u32(w)));
    const uint32x4_t k0 = vld1q_u32(keys0);
    const uint32x4_t k1 = vld1q_u32(keys1);
    s0 = vmlal_u32(s0, vget_low_u32(w), vget_low_u32(k0));
    s1 = vmlal_u32(s1, vget_low_u32(x), vget_low_u32(k1));
    s0 = vmlal_high_u32(s0, w, k0);
    s1 = vmlal_high_u32(s1, x, k1);
  }

  [[gnu::always_inline]] inline Lanes total() const { return {vaddvq_u64(s0), vaddvq_u64(s1)}; }
};

[[gnu::always_inline]] inline uint32x4_t load(const u8* p) {
  return vreinterpretq_u32_u8(vld1q_u8(p));
}

Lanes words(const u8* p, u64 j, u64 count, const KeyTable& keys) {
  const u32* a0 = keys.word[0] + j;
  const u32* a1 = keys.word[1] + j;
  Sums sums;
  u64 k = 0;
  for (; k + 4 <= count; k += 4) sums.add(load(p + 4 * k), a0 + k, a1 + k);
  Lanes sum = sums.total();
  for (; k < count; ++k) {
    u32 w;
    std::memcpy(&w, p + 4 * k, 4);
    sum.l0 += u64{a0[k]} * w;
    sum.l1 += u64{a1[k]} * exchange_halves(w);
  }
  return sum;
}

Lanes blocks(const u8* p, u64 first, u64 count, const KeyTable& keys) {
  Lanes sum;
  for (u64 i = 0; i < count; ++i, p += kBlockBytes) {
    // Two sums: a multiply-add waits for the one before it.
    Sums a, b;
    for (u64 k = 0; k < kBlockWords; k += 8) {
      a.add(load(p + 4 * k), keys.word[0] + k, keys.word[1] + k);
      b.add(load(p + 4 * k + 16), keys.word[0] + k + 4, keys.word[1] + k + 4);
    }
    Lanes inner = a.total();
    inner += b.total();
    sum += weigh(inner, keys.base, first + i);
  }
  return sum;
}

u64 equal_prefix(const u8* a, const u8* b, u64 nbytes) {
  constexpr u64 kStep = 64;
  u64 at = 0;
  for (; nbytes - at >= kStep; at += kStep) {
    uint8x16_t differing = vdupq_n_u8(0);
    for (u64 i = 0; i < kStep; i += 16) {
      differing = vorrq_u8(differing, veorq_u8(vld1q_u8(a + at + i), vld1q_u8(b + at + i)));
    }
    if (vmaxvq_u8(differing) != 0) break;
  }
  return at;
}

u64 read_sum(const u8* p, u64 nbytes) {
  uint64x2_t sum[4] = {vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0), vdupq_n_u64(0)};
  u64 at = 0;
  for (; at + 64 <= nbytes; at += 64) {
    for (u64 i = 0; i < 4; ++i) {
      sum[i] = vaddq_u64(sum[i], vreinterpretq_u64_u8(vld1q_u8(p + at + 16 * i)));
    }
  }
  u64 total = vaddvq_u64(vaddq_u64(vaddq_u64(sum[0], sum[1]), vaddq_u64(sum[2], sum[3])));
  for (; at + 8 <= nbytes; at += 8) {
    u64 word;
    std::memcpy(&word, p + at, 8);
    total += word;
  }
  return total;
}

}  // namespace

const Kernels kNeon = {"neon",   supported,         words,  blocks, equal_prefix,
                       read_sum, portable_multiset, nullptr};

}  // namespace repro_audit

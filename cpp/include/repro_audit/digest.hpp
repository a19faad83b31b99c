// The digest's arithmetic, SPEC.md sections 2 to 6: keys, words, lanes, finalisation.
//
// Everything is unsigned and modulo 2^64, so sums may be made in any order and split anywhere.
#pragma once

#include "config.hpp"

namespace repro_audit {

inline constexpr u32 kDigestVersion = 1;
inline constexpr u64 kBlockWords = 256;
inline constexpr u64 kBlockBytes = 4 * kBlockWords;

// Separates the block keys' sequence from the word keys', which start at the same base.
inline constexpr u64 kBlockSalt = 0xD1B54A32D192ED03;

// The output function of splitmix64 (Steele, Lea and Flood, 2014): a bijection of 64 bits.
REPRO_AUDIT_FN constexpr u64 mix(u64 x) {
  u64 z = x + 0x9E3779B97F4A7C15;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

REPRO_AUDIT_FN constexpr u64 key_base(u64 key) { return mix(key); }

// a_l[j]: 32 bits, odd; j in 0 ... 255.
REPRO_AUDIT_FN constexpr u32 word_key(u64 base, u32 lane, u64 j) {
  return static_cast<u32>(mix(base + 2 * j + lane) >> 32) | 1U;
}

// b_l[i]: 64 bits, odd; i is the number of a block of 256 words.
REPRO_AUDIT_FN constexpr u64 block_key(u64 base, u32 lane, u64 i) {
  return mix((base ^ kBlockSalt) + 2 * i + lane) | 1U;
}

// w_1 of w_0: the word with its halves exchanged.
REPRO_AUDIT_FN constexpr u32 exchange_halves(u32 w) { return (w >> 16) | (w << 16); }

// Two sums: of a whole stream, of a range of one, or (times no block key yet) of part of a block.
struct Lanes {
  u64 l0 = 0;
  u64 l1 = 0;

  REPRO_AUDIT_FN constexpr Lanes& operator+=(Lanes other) {
    l0 += other.l0;
    l1 += other.l1;
    return *this;
  }
};

// Sums of part of a block, multiplied by that block's keys.
REPRO_AUDIT_FN constexpr Lanes weigh(Lanes inner, u64 base, u64 block) {
  return {inner.l0 * block_key(base, 0, block), inner.l1 * block_key(base, 1, block)};
}

struct Digest {
  u64 hi;
  u64 lo;
};

// Of a whole stream of `nbytes` bytes; for a fixed length and tag a bijection of the lanes.
REPRO_AUDIT_FN constexpr Digest finalize(Lanes lanes, u64 nbytes, u64 tag) {
  const u64 h = mix(nbytes ^ mix(tag));
  u64 hi = mix(lanes.l0 ^ h);
  const u64 lo = mix(lanes.l1 ^ mix(h ^ hi));
  hi ^= lo;
  return {hi, lo};
}

}  // namespace repro_audit

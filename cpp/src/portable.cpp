// Kernels in plain C++: right on any little- or big-endian machine, and the yardstick of the
// others.
#include <bit>
#include <cstring>

#include "kernels.hpp"

namespace repro_audit {
namespace {

bool supported() { return true; }

u32 load_word(const u8* p) {
  u32 w;
  std::memcpy(&w, p, 4);
  if constexpr (std::endian::native == std::endian::big) w = __builtin_bswap32(w);
  return w;
}

Lanes words(const u8* p, u64 j, u64 count, const KeyTable& keys) {
  const u32* a0 = keys.word[0] + j;
  const u32* a1 = keys.word[1] + j;
  Lanes sum;
  for (u64 k = 0; k < count; ++k) {
    const u32 w = load_word(p + 4 * k);
    sum.l0 += u64{a0[k]} * w;
    sum.l1 += u64{a1[k]} * exchange_halves(w);
  }
  return sum;
}

Lanes blocks(const u8* p, u64 first, u64 count, const KeyTable& keys) {
  Lanes sum;
  for (u64 i = 0; i < count; ++i) {
    sum += weigh(words(p + i * kBlockBytes, 0, kBlockWords, keys), keys.base, first + i);
  }
  return sum;
}

u64 equal_prefix(const u8* a, const u8* b, u64 nbytes) {
  constexpr u64 kStep = 256;
  u64 at = 0;
  while (nbytes - at >= kStep && std::memcmp(a + at, b + at, kStep) == 0) at += kStep;
  return at;
}

u64 read_sum(const u8* p, u64 nbytes) {
  u64 sum = 0;
  for (u64 at = 0; at + 8 <= nbytes; at += 8) {
    u64 word;
    std::memcpy(&word, p + at, 8);
    sum += word;
  }
  return sum;
}

template <class Bits>
Lanes multiset_of(const u8* p, u64 count, const MultisetKeys& keys) {
  Lanes sum;
  for (u64 i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, p + i * sizeof bits, sizeof bits);
    MultisetElement element;
    if constexpr (sizeof bits == 8) {
      element.absorb(static_cast<u32>(bits), static_cast<u32>(bits >> 32), keys, sum);
    } else {
      element.absorb(bits, 0, keys, sum);
    }
  }
  return sum;
}

Lanes multiset_of_pairs(const u8* p, u64 count, const MultisetKeys& keys) {
  Lanes sum;
  for (u64 i = 0; i < count; ++i) {
    u64 bits[2];
    std::memcpy(bits, p + i * sizeof bits, sizeof bits);
    MultisetElement element;
    for (const u64 half : bits) {
      element.absorb(static_cast<u32>(half), static_cast<u32>(half >> 32), keys, sum);
    }
  }
  return sum;
}

}  // namespace

Lanes portable_multiset(const u8* p, u64 count, u64 itemsize, const MultisetKeys& keys) {
  switch (itemsize) {
    case 1: return multiset_of<u8>(p, count, keys);
    case 2: return multiset_of<u16>(p, count, keys);
    case 4: return multiset_of<u32>(p, count, keys);
    case 8: return multiset_of<u64>(p, count, keys);
    default: return multiset_of_pairs(p, count, keys);
  }
}

const Kernels kPortable = {"portable", supported,         words,  blocks, equal_prefix,
                           read_sum,   portable_multiset, nullptr};

}  // namespace repro_audit

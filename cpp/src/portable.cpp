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

}  // namespace

const Kernels kPortable = {"portable", supported, words, blocks, equal_prefix, read_sum};

}  // namespace repro_audit

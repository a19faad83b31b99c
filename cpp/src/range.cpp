#include "range.hpp"

#include <algorithm>
#include <vector>

#include "parallel.hpp"

namespace repro_audit {
namespace {

// One word of the range of which only bytes `at` ... `at + count - 1` are in it.
Lanes partial_word(const KeyTable& keys, const u8* p, u64 word, u64 at, u64 count) {
  u32 w = 0;
  for (u64 i = 0; i < count; ++i) w |= static_cast<u32>(p[i]) << (8 * (at + i));
  const u64 j = word % kBlockWords;
  const Lanes inner{u64{keys.word[0][j]} * w, u64{keys.word[1][j]} * exchange_halves(w)};
  return weigh(inner, keys.base, word / kBlockWords);
}

}  // namespace

Lanes range_lanes(const Kernels& kernels, const KeyTable& keys, const u8* p, u64 nbytes,
                  u64 offset) {
  Lanes sum;
  u64 word = offset / 4;
  if (const u64 at = offset % 4; at != 0 && nbytes != 0) {
    const u64 count = std::min<u64>(4 - at, nbytes);
    sum += partial_word(keys, p, word++, at, count);
    p += count;
    nbytes -= count;
  }
  u64 whole = nbytes / 4;
  if (const u64 j = word % kBlockWords; whole != 0 && (j != 0 || whole < kBlockWords)) {
    const u64 count = std::min<u64>(kBlockWords - j, whole);
    sum += weigh(kernels.words(p, j, count, keys), keys.base, word / kBlockWords);
    p += 4 * count;
    word += count;
    whole -= count;
  }
  if (const u64 blocks = whole / kBlockWords; blocks != 0) {
    sum += kernels.blocks(p, word / kBlockWords, blocks, keys);
    p += blocks * kBlockBytes;
    word += blocks * kBlockWords;
    whole -= blocks * kBlockWords;
  }
  if (whole != 0) {
    sum += weigh(kernels.words(p, 0, whole, keys), keys.base, word / kBlockWords);
    p += 4 * whole;
    word += whole;
  }
  if (const u64 rest = nbytes % 4; rest != 0) sum += partial_word(keys, p, word, 0, rest);
  return sum;
}

Lanes parallel_lanes(const Kernels& kernels, const KeyTable& keys, const u8* p, u64 nbytes,
                     u64 offset, unsigned threads) {
  const unsigned parts = worth_threads(nbytes, threads);
  if (parts <= 1) return range_lanes(kernels, keys, p, nbytes, offset);
  std::vector<Lanes> sums(parts);
  // Parts of whole blocks: where the range itself starts inside a block, each part does too.
  const u64 step = (nbytes / parts / kBlockBytes + 1) * kBlockBytes;
  run_parallel(parts, [&](unsigned part) {
    const u64 from = std::min(nbytes, part * step);
    const u64 to = std::min(nbytes, from + step);
    sums[part] = range_lanes(kernels, keys, p + from, to - from, offset + from);
  });
  Lanes total;
  for (const Lanes& sum : sums) total += sum;
  return total;
}

}  // namespace repro_audit

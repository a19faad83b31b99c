// What each thread of a kernel does, as functions of (thread index, thread count).
//
// The host may call them as well: for every grid, the answers of all its threads together are the
// lanes, or the divergence, of the whole.
#pragma once

#include "repro_audit/cuda/sources.hpp"
#include "repro_audit/cuda/tally.hpp"
#include "repro_audit/digest.hpp"
#include "repro_audit/multiset.hpp"
#include "repro_audit/sample.hpp"
#include "repro_audit/ulp.hpp"

namespace repro_audit::cuda {

inline constexpr u64 kWarp = 32;

// Of a block of threads, in all kernels but that of ULP divergence.
inline constexpr unsigned kThreads = 256;
inline constexpr unsigned kUlpThreads = 128;

// Of ULP divergence, blocks that a multiprocessor is to run at once: 64 registers for a thread.
inline constexpr unsigned kUlpBlocks = 8;

// Blocks for each multiprocessor at most: of kernels that read through a warp's blocks, and of
// those whose threads read by themselves.
inline constexpr unsigned kBlockwise = 8;
inline constexpr unsigned kThreadwise = 16;

// The block keys of 32 blocks at a time: a warp's threads make one pair each and hand it round.
// On the host, where a thread is alone, each makes those that it needs.
class BlockKeys {
 public:
  REPRO_AUDIT_FN explicit BlockKeys(u64 base) : base_(base) {}

  // To be called by all threads of a warp: `mine` is the block whose keys this thread, number
  // `place` of the warp, makes.
  REPRO_AUDIT_FN void make(u64 mine, int place) {
#if defined(__CUDA_ARCH__)
    // Handed to itself: what can be made again the compiler would make again for every block, to
    // save registers.
    key0_ = __shfl_sync(~0U, block_key(base_, 0, mine), place);
    key1_ = __shfl_sync(~0U, block_key(base_, 1, mine), place);
#else
    static_cast<void>(mine);
    static_cast<void>(place);
#endif
  }

  // `inner` times the keys of `block`, which thread `maker` of the warp made.
  REPRO_AUDIT_FN Lanes weigh(Lanes inner, int maker, u64 block) const {
#if defined(__CUDA_ARCH__)
    static_cast<void>(block);
    return {inner.l0 * __shfl_sync(~0U, key0_, maker), inner.l1 * __shfl_sync(~0U, key1_, maker)};
#else
    static_cast<void>(maker);
    return repro_audit::weigh(inner, base_, block);
#endif
  }

 private:
  u64 base_;
#if defined(__CUDA_ARCH__)
  u64 key0_ = 0;
  u64 key1_ = 0;
#endif
};

// a * b. On a device in PTX's words: else it is a product of 64 bits, and the compiler of machine
// code adds its upper parts, which are zero.
REPRO_AUDIT_FN u64 product(u32 a, u32 b) {
#if defined(__CUDA_ARCH__) && defined(__CUDACC__)
  u64 wide;
  asm("mul.wide.u32 %0, %1, %2;" : "=l"(wide) : "r"(a), "r"(b));
  return wide;
#else
  return u64{a} * b;
#endif
}

// The word keys of the eight words of each block that one thread of a warp reads: four in the
// block's first half, four in its second.
class WordKeys {
 public:
  REPRO_AUDIT_FN WordKeys(u64 base, u64 place) {
    REPRO_AUDIT_UNROLL
    for (int half = 0; half < 2; ++half) {
      REPRO_AUDIT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const u64 word = static_cast<u64>(half) * 128 + 4 * place + static_cast<u64>(i);
        key0_[4 * half + i] = word_key(base, 0, word);
        key1_[4 * half + i] = word_key(base, 1, word);
      }
    }
  }

  REPRO_AUDIT_FN void absorb(const Quad& quad, int half, Lanes& inner) const {
    REPRO_AUDIT_UNROLL
    for (int i = 0; i < 4; ++i) {
      inner.l0 += product(key0_[4 * half + i], quad.word[i]);
      inner.l1 += product(key1_[4 * half + i], exchange_halves(quad.word[i]));
    }
  }

 private:
  u32 key0_[8];
  u32 key1_[8];
};

// This thread's part of the lanes of blocks first ... last - 1, of which its warp, number `warp` of
// `warps`, takes every `warps`-th. All threads of a warp call it with the same blocks.
template <class Source>
REPRO_AUDIT_FN Lanes block_work(const Source& source, u64 base, const WordKeys& keys, u64 first,
                                u64 last, u64 place, u64 warp, u64 warps) {
  Lanes sum;
  BlockKeys block_keys(base);
  for (u64 start = first + warp; start < last; start += kWarp * warps) {
    block_keys.make(start + place * warps, static_cast<int>(place));
    for (int n = 0; n < static_cast<int>(kWarp); n += Source::kTogether) {
      const u64 block = start + static_cast<u64>(n) * warps;
      if (block >= last) break;
      Quad low[Source::kTogether];
      Quad high[Source::kTogether];
      // But for a stream's ends all of them are whole: one question for all the loads.
      const u64 furthest = block + static_cast<u64>(Source::kTogether - 1) * warps;
      if (furthest < last && source.holds(block * kBlockBytes, (furthest + 1) * kBlockBytes)) {
        REPRO_AUDIT_UNROLL
        for (int k = 0; k < Source::kTogether; ++k) {
          const u64 next = block + static_cast<u64>(k) * warps;
          const u64 at = next * kBlockBytes + place * kQuadBytes;
          low[k] = source.load_held(at);
          high[k] = source.load_held(at + kBlockBytes / 2);
        }
      } else {
        REPRO_AUDIT_UNROLL
        for (int k = 0; k < Source::kTogether; ++k) {
          const u64 next = block + static_cast<u64>(k) * warps;
          if (next >= last) break;
          const u64 at = next * kBlockBytes + place * kQuadBytes;
          low[k] = source.load(at);
          high[k] = source.load(at + kBlockBytes / 2);
        }
      }
      REPRO_AUDIT_UNROLL
      for (int k = 0; k < Source::kTogether; ++k) {
        Lanes inner;
        keys.absorb(low[k], 0, inner);
        keys.absorb(high[k], 1, inner);
        sum += block_keys.weigh(inner, n + k, block + static_cast<u64>(k) * warps);
      }
    }
  }
  return sum;
}

// Thread `thread` of `threads` (a multiple of 32): its part of the lanes of the bytes
// begin ... end - 1 of a stream.
template <class Source>
REPRO_AUDIT_FN Lanes stream_work(const Source& source, u64 begin, u64 end, u64 key, u64 thread,
                                 u64 threads) {
  const u64 base = key_base(key);
  const u64 place = thread % kWarp;
  const WordKeys keys(base, place);
  const u64 last = (end + kBlockBytes - 1) / kBlockBytes;
  return block_work(source, base, keys, begin / kBlockBytes, last, place, thread / kWarp,
                    threads / kWarp);
}

// One tensor of many: its bytes lie together; `first_unit` is the sum of the units before it.
struct Row {
  u64 address;
  u64 nbytes;
  u64 first_unit;
};

// A table is a parameter of its launch, so that no copy of it has to be waited for. 32,764 bytes of
// parameters are the most that CUDA 12.1 and later take.
template <int kRows>
struct Table {
  Row rows[kRows];
};
inline constexpr int kFewRows = 64;
inline constexpr int kMostRows = 1360;
static_assert(sizeof(Table<kMostRows>) + 4 * sizeof(u64) <= 32764);

// What a warp takes at a time where one launch reads many tensors.
inline constexpr u64 kUnitBlocks = 8;
inline constexpr u64 kUnitBytes = kUnitBlocks * kBlockBytes;

// Units of a tensor; an empty one has none.
REPRO_AUDIT_FN constexpr u64 units_of(u64 nbytes) { return (nbytes + kUnitBytes - 1) / kUnitBytes; }

// The last row that begins at or before `unit` and has units: rows without any share their begin
// with the next.
REPRO_AUDIT_FN u64 row_of(const Row* rows, u64 count, u64 unit) {
  u64 low = 0;
  u64 high = count;
  while (high - low > 1) {
    const u64 middle = low + (high - low) / 2;
    if (rows[middle].first_unit <= unit) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Thread `thread` of `threads`: calls add(row, lanes) with its parts of the rows' lanes.
template <class Add>
REPRO_AUDIT_FN void table_work(const Row* rows, u64 count, u64 units, u64 key, u64 thread,
                               u64 threads, Add&& add) {
  const u64 base = key_base(key);
  const u64 place = thread % kWarp;
  const WordKeys keys(base, place);
  for (u64 unit = thread / kWarp; unit < units; unit += threads / kWarp) {
    const u64 at = row_of(rows, count, unit);
    const Row row = rows[at];
    const u64 first = (unit - row.first_unit) * kUnitBlocks;
    const u64 blocks = (row.nbytes + kBlockBytes - 1) / kBlockBytes;
    const u64 last = first + kUnitBlocks < blocks ? first + kUnitBlocks : blocks;
    const auto take = [&](auto source) {
      add(at, block_work(source, base, keys, first, last, place, 0, 1));
    };
    if (row.address % 16 == 0) {
      take(Contiguous<16>{row.address, 0, row.nbytes});
    } else if (row.address % 4 == 0) {
      take(Contiguous<4>{row.address, 0, row.nbytes});
    } else if (row.address % 2 == 0) {
      take(Contiguous<2>{row.address, 0, row.nbytes});
    } else {
      take(Contiguous<1>{row.address, 0, row.nbytes});
    }
  }
}

// Takes the element of kItem bytes at byte `i` of a quad.
template <int kItem>
REPRO_AUDIT_FN void absorb_element(const Quad& quad, int i, const MultisetKeys& keys, Lanes& sum) {
  MultisetElement element;
  if constexpr (kItem <= 4) {
    constexpr u32 kMask = kItem == 4 ? ~0U : (1U << (8 * (kItem % 4))) - 1;
    element.absorb((quad.word[i / 4] >> (8 * (i % 4))) & kMask, 0, keys, sum);
  } else {
    REPRO_AUDIT_UNROLL
    for (int half = 0; half < kItem; half += 8) {
      element.absorb(quad.word[(i + half) / 4], quad.word[(i + half) / 4 + 1], keys, sum);
    }
  }
}

// Thread `thread` of `threads`: its part of the multiset lanes of `nbytes` bytes of elements of
// kItem bytes.
template <int kItem, class Source>
REPRO_AUDIT_FN Lanes multiset_work(const Source& source, u64 nbytes, u64 key, u64 thread,
                                   u64 threads) {
  const MultisetKeys keys = MultisetKeys::of(key);
  Lanes sum;
  const u64 stride = threads * kQuadBytes;
  for (u64 first = thread * kQuadBytes; first < nbytes; first += Source::kTogether * stride) {
    Quad quads[Source::kTogether];
    REPRO_AUDIT_UNROLL
    for (int k = 0; k < Source::kTogether; ++k) {
      quads[k] = source.load(first + static_cast<u64>(k) * stride);
    }
    REPRO_AUDIT_UNROLL
    for (int k = 0; k < Source::kTogether; ++k) {
      const u64 at = first + static_cast<u64>(k) * stride;
      REPRO_AUDIT_UNROLL
      for (int i = 0; i < 16; i += kItem) {
        if (at + static_cast<u64>(i) >= nbytes) break;
        absorb_element<kItem>(quads[k], i, keys, sum);
      }
    }
  }
  return sum;
}

// Thread `thread` of `threads`: copies its part of `count` of a tensor's elements, of kItem bytes
// each, to `out`.
template <int kItem>
REPRO_AUDIT_FN void sample_work(const Pieces<kItem>& pieces, u64 count, u64 out, u64 thread,
                                u64 threads) {
  for (u64 i = thread; i < count; i += threads) {
    const u64 from = pieces.locate(sample_index(i, count, pieces.count)).address;
    copy_piece<kItem>(from, out + i * kItem);
  }
}

// 0 where two quads are equal.
REPRO_AUDIT_FN u32 difference(const Quad& a, const Quad& b) {
  return (a.word[0] ^ b.word[0]) | (a.word[1] ^ b.word[1]) | (a.word[2] ^ b.word[2]) |
         (a.word[3] ^ b.word[3]);
}

// Thread `thread` of `threads`: its part of what `numel` numbers of one format differ by. Calls
// count(bin) for each pair of different numbers, whose bin is not 0, and for some others with 0:
// differing pairs of bin 0 are signed zeros and NaNs' payloads. The figures, which are those of
// nothing, get all but numel.
// Threads that share what is reached spare each other pairs to look at, and find no less together.
template <class Format, class SourceA, class SourceB, class Count>
REPRO_AUDIT_FN void ulp_work(const SourceA& a, const SourceB& b, u64 numel, u64 thread, u64 threads,
                             Reached<Format>& reached, Figures& figures, Count&& count) {
  using Bits = typename Format::Bits;
  constexpr int kItem = sizeof(Bits);
  // Words that are worked on at a time: the code of 8 or 16 elements would be more than a
  // multiprocessor's instruction cache holds.
  constexpr int kWords = kItem >= 4 ? 4 : 1;
  constexpr int kPairs = 4 * kWords / kItem;
  const u64 nbytes = numel * kItem;
  const u64 stride = threads * kQuadBytes;
  Tally<Format> tally(reached, figures);
  const auto element = [](const Quad& quad, int i) {
    if constexpr (kItem == 8) {
      return u64{quad.word[2 * i]} | u64{quad.word[2 * i + 1]} << 32;
    } else {
      return static_cast<Bits>(quad.word[i * kItem / 4] >> (i * kItem % 4 * 8));
    }
  };
  // Moves elements from `bytes` on to the quad's begin.
  const auto advance = [](Quad& quad, int bytes) {
    if (bytes < 4) {
      quad.word[0] >>= 8 * bytes;
      return;
    }
    REPRO_AUDIT_UNROLL
    for (int m = 0; m < 4; ++m) quad.word[m] = m + bytes / 4 < 4 ? quad.word[m + bytes / 4] : 0;
  };
  const auto part = [&](u64 at, const Quad& x, const Quad& y) {
    if (tally.begun()) {
      const Reached<Format> seen = reached.seen();
      bool plain = true;
      REPRO_AUDIT_UNROLL
      for (int i = 0; i < kPairs; ++i) {
        plain &= tally.is_plain(element(x, i), element(y, i), seen);
      }
      if (plain) {
        REPRO_AUDIT_UNROLL
        for (int i = 0; i < kPairs; ++i) tally.count(element(x, i), element(y, i), count);
        return;
      }
    }
    Quad p = x;
    Quad q = y;
    REPRO_AUDIT_ROLLED
    for (int i = 0; i < kPairs; ++i) {
      const Bits one = element(p, 0);
      const Bits other = element(q, 0);
      if (one != other) tally.look(at / kItem + static_cast<u64>(i), one, other, count);
      advance(p, kItem);
      advance(q, kItem);
    }
  };
  // What a short last quad lacks, and all of one past the end, is 0 on both sides: equal.
  for (u64 first = thread * kQuadBytes; first < nbytes; first += 2 * stride) {
    // But for a stream's end all of them are whole: one question for all the loads. Four are in
    // flight, of which most often nothing is left to do. Where something is, it is loaded once
    // more, from the cache: kept, it would take the registers of other threads.
    const u64 next = first + stride;
    const bool whole = a.holds(first, next + kQuadBytes) && b.holds(first, next + kQuadBytes);
    if (whole) {
      const u32 here = difference(a.load_held(first), b.load_held(first));
      const u32 there = difference(a.load_held(next), b.load_held(next));
      if ((here | there) == 0) continue;
    }
    REPRO_AUDIT_ROLLED
    for (int k = 0; k < 2; ++k) {
      const u64 at = k == 0 ? first : next;
      Quad x = whole ? a.load_held(at) : a.load(at);
      Quad y = whole ? b.load_held(at) : b.load(at);
      REPRO_AUDIT_ROLLED
      for (int n = 0; n < 4; n += kWords) {
        part(at + 4 * static_cast<u64>(n), x, y);
        advance(x, 4);
        advance(y, 4);
      }
    }
  }
  tally.finish();
}

}  // namespace repro_audit::cuda

// Where a thread finds sixteen bytes of a stream: in memory that lies together, or in strided
// memory of any rank.
//
// Compiles under nvcc, NVRTC and the host's compiler: what a GPU's threads run, tests call on the
// host.
#pragma once

#include "repro_audit/config.hpp"

namespace repro_audit::cuda {

inline constexpr u64 kQuadBytes = 16;

// Sixteen bytes of a stream: four words, each from its least significant byte.
struct Quad {
  u32 word[4] = {};
};

// What is read at once: kBytes bytes at an address that is a multiple of kBytes.
template <int kBytes>
struct Piece;
template <>
struct Piece<1> {
  using Type = u8;
};
template <>
struct Piece<2> {
  using Type = u16;
};
template <>
struct Piece<4> {
  using Type = u32;
};
template <>
struct Piece<8> {
  using Type = u64;
};
struct alignas(16) Wide {
  u64 half[2];
};
template <>
struct Piece<16> {
  using Type = Wide;
};

// Puts the piece at `address` into the quad, `at` bytes from its begin.
template <int kBytes>
REPRO_AUDIT_FN void read_piece(u64 address, int at, Quad& quad) {
  using Type = typename Piece<kBytes>::Type;
  Type piece;
#if defined(__CUDA_ARCH__)
  // An address that came as a number is generic to the compiler: without __ldg a load would have to
  // find out whose memory it reads, and could not go by the read-only path.
  if constexpr (kBytes == 16) {
    const ulonglong2 both = __ldg(reinterpret_cast<const ulonglong2*>(address));
    piece = {both.x, both.y};
  } else {
    piece = __ldg(reinterpret_cast<const Type*>(address));
  }
#else
  __builtin_memcpy(&piece, reinterpret_cast<const void*>(address), sizeof piece);
#endif
  if constexpr (kBytes == 16) {
    quad.word[0] = static_cast<u32>(piece.half[0]);
    quad.word[1] = static_cast<u32>(piece.half[0] >> 32);
    quad.word[2] = static_cast<u32>(piece.half[1]);
    quad.word[3] = static_cast<u32>(piece.half[1] >> 32);
  } else if constexpr (kBytes == 8) {
    quad.word[at / 4] = static_cast<u32>(piece);
    quad.word[at / 4 + 1] = static_cast<u32>(piece >> 32);
  } else {
    quad.word[at / 4] |= static_cast<u32>(piece) << (8 * (at % 4));
  }
}

template <int kBytes>
REPRO_AUDIT_FN void copy_piece(u64 from, u64 to) {
#if defined(__CUDA_ARCH__)
  using Type = typename Piece<kBytes>::Type;
  *reinterpret_cast<Type*>(to) = *reinterpret_cast<const Type*>(from);
#else
  __builtin_memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), kBytes);
#endif
}

// Bytes begin ... end - 1 of a stream, one after another in memory; `origin` is the address that
// the stream's byte 0 has, or would have. Where kBytes > 1, origin is a multiple of kBytes.
template <int kBytes>
struct Contiguous {
  // How many times in a row a thread loads before it works on what came. A multiprocessor of an
  // H200 must have some 40 KB in flight; once in a row, its threads have 24 to 32 KB at most.
  static constexpr int kTogether = 2;

  u64 origin;
  u64 begin;
  u64 end;

  // True if bytes from ... to - 1 are all of the range.
  REPRO_AUDIT_FN bool holds(u64 from, u64 to) const { return from >= begin && to <= end; }

  // The bytes at ... at + 15, which are all of the range.
  REPRO_AUDIT_FN Quad load_held(u64 at) const {
    Quad quad;
    REPRO_AUDIT_UNROLL
    for (int i = 0; i < 16; i += kBytes) {
      read_piece<kBytes>(origin + at + static_cast<u64>(i), i, quad);
    }
    return quad;
  }

  // The bytes at ... at + 15; those that are not of the range are 0.
  REPRO_AUDIT_FN Quad load(u64 at) const {
    if (holds(at, at + kQuadBytes)) return load_held(at);
    Quad quad;
    for (int i = 0; i < 16; ++i) {
      const u64 byte = at + static_cast<u64>(i);
      if (byte >= begin && byte < end) read_piece<1>(origin + byte, i, quad);
    }
    return quad;
  }
};

// n / divisor for n < 2^31 by a multiplication and a shift (Granlund and Montgomery, 1994).
struct Divider {
  u32 magic = 0;
  u32 shift = 0;

  // 1 <= divisor < 2^31
  REPRO_AUDIT_FN static constexpr Divider of(u32 divisor) {
    u32 shift = 0;
    while ((u64{1} << shift) < divisor) ++shift;
    const u64 magic = ((u64{1} << 32) * ((u64{1} << shift) - divisor)) / divisor + 1;
    return {static_cast<u32>(magic), shift};
  }

  REPRO_AUDIT_FN constexpr u32 divide(u32 n) const {
    const u32 high = static_cast<u32>((u64{n} * magic) >> 32);
    return (high + n) >> shift;
  }
};

// As many dimensions as torch and NumPy have, and one for the pieces of an element.
inline constexpr int kMaxRank = 65;
inline constexpr u64 kSmallPieces = u64{1} << 31;

// One dimension: `step` bytes from one index to the next.
struct Axis {
  u64 size;
  i64 step;
  Divider divider;

  REPRO_AUDIT_FN u32 quotient(u32 n) const { return divider.divide(n); }
  REPRO_AUDIT_FN u64 quotient(u64 n) const { return n / size; }
};

// A strided tensor as pieces of kBytes bytes in the order of its stream; dimensions from the
// outermost, at least one, the last one's pieces being those that the stream reads in succession.
template <int kBytes>
struct Pieces {
  // As for Contiguous; but here a load is several, and its code long.
  static constexpr int kTogether = 1;

  u64 address;
  u64 count;
  int rank;
  Axis axes[kMaxRank];

  // Where a piece is, and how many there are from it on in its row.
  struct Place {
    u64 address;
    u64 left;
  };

  // Index is u32 where there are fewer than kSmallPieces, which spares the divisions.
  template <class Index>
  REPRO_AUDIT_FN Place find(Index index) const {
    i64 at = 0;
    u64 left = 0;
    Index here = index;
    for (int d = rank - 1; d >= 0; --d) {
      const Index next = d == 0 ? Index{0} : axes[d].quotient(index);
      here = index - next * static_cast<Index>(axes[d].size);
      at += static_cast<i64>(here) * axes[d].step;
      if (d == rank - 1) left = axes[d].size - here;
      index = next;
    }
    return {address + static_cast<u64>(at), left};
  }

  // Where a piece is has to be found out for each.
  REPRO_AUDIT_FN static constexpr bool holds(u64 /*from*/, u64 /*to*/) { return false; }
  REPRO_AUDIT_FN Quad load_held(u64 at) const { return load(at); }

  // In place it would be most of a kernel, once for each piece: more than a multiprocessor's
  // instruction cache holds.
  REPRO_AUDIT_CALLED Place find_any(u64 index) const {
    return count < kSmallPieces ? find(static_cast<u32>(index)) : find(index);
  }

  REPRO_AUDIT_FN Place locate(u64 index) const {
    return count < kSmallPieces ? find(static_cast<u32>(index)) : find_any(index);
  }

  REPRO_AUDIT_FN Quad load(u64 at) const {
    Quad quad;
    u64 index = at / kBytes;
    if (index >= count) return quad;
    Place here = locate(index);
    REPRO_AUDIT_UNROLL
    for (int i = 0; i < 16; i += kBytes) {
      if (index >= count) return quad;
      if (here.left == 0) here = find_any(index);
      read_piece<kBytes>(here.address, i, quad);
      here.address += static_cast<u64>(axes[rank - 1].step);
      --here.left;
      ++index;
    }
    return quad;
  }
};

}  // namespace repro_audit::cuda

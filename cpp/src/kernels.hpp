// The table of kernels: one row an instruction set, all with the same results, bit for bit.
//
// A new instruction set is one more file that defines such a row and one more line in dispatch.cpp.
#pragma once

#include <cstddef>

#include "keys.hpp"
#include "repro_audit/multiset.hpp"
#include "repro_audit/ulp.hpp"

namespace repro_audit {

struct Kernels {
  const char* name;
  bool (*supported)();

  // Unweighted sums of `count` words at `p` (any alignment) whose first is word `j` of a block;
  // j + count <= 256.
  Lanes (*words)(const u8* p, u64 j, u64 count, const KeyTable& keys);

  // Weighted sums of `count` whole blocks at `p` (any alignment), the first being block `first`.
  Lanes (*blocks)(const u8* p, u64 first, u64 count, const KeyTable& keys);

  // How many bytes at the start of `a` and `b` are equal, at most `nbytes`; possibly fewer than
  // there are, by less than 256, where they differ.
  u64 (*equal_prefix)(const u8* a, const u8* b, u64 nbytes);

  // Sum of the whole 64-bit words of `nbytes` bytes.
  u64 (*read_sum)(const u8* p, u64 nbytes);

  // Multiset lanes of `count` elements of `itemsize` bytes (1, 2, 4, 8 or 16), one after another.
  Lanes (*multiset)(const u8* p, u64 count, u64 itemsize, const MultisetKeys& keys);

  // Adds pairs `first` ... `first + count - 1` of elements of dtype `tag` to `result`, which holds
  // earlier pairs only, but for numel and the histogram's share of equal pairs. Returns `count`, or
  // 0 for a dtype that this row has no vectors for. Null where it has none at all.
  u64 (*divergence)(Tag tag, const u8* a, const u8* b, u64 first, u64 count, Divergence& result);
};

// Multiset lanes in plain C++, for rows without vectors of their own.
Lanes portable_multiset(const u8* p, u64 count, u64 itemsize, const MultisetKeys& keys);

extern const Kernels kPortable;
#if defined(REPRO_AUDIT_X86)
extern const Kernels kAvx2;
extern const Kernels kAvx512;
#elif defined(REPRO_AUDIT_ARM64)
extern const Kernels kNeon;
#endif

}  // namespace repro_audit

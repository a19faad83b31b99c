// The table of kernels: one row an instruction set, all with the same results, bit for bit.
//
// A new instruction set is one more file that defines such a row and one more line in dispatch.cpp.
#pragma once

#include <cstddef>

#include "keys.hpp"

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
};

extern const Kernels kPortable;
#if defined(REPRO_AUDIT_AVX2)
extern const Kernels kAvx2;
#endif

}  // namespace repro_audit

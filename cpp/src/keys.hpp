// The word keys of one key, laid out for kernels; 6 KiB, so that they stay in L1 beside the stream.
#pragma once

#include "repro_audit/digest.hpp"

namespace repro_audit {

struct KeyTable {
  explicit KeyTable(u64 key);

  u64 base;
  // In order, for scalar code and heads and tails of runs.
  alignas(64) u32 word[2][kBlockWords];
  // Even and odd words' keys zero-extended to 64 bits: `vpmuludq` reads the low half of each
  // 64-bit lane, so it takes the stream as it is against `even` and shifted by 32 against `odd`.
  alignas(64) u64 even[2][kBlockWords / 2];
  alignas(64) u64 odd[2][kBlockWords / 2];
};

// The table of the default key, 0, made once.
const KeyTable& default_keys();

}  // namespace repro_audit

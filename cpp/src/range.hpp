// Lanes of any byte range of a stream, SPEC.md section 5.
#pragma once

#include "kernels.hpp"

namespace repro_audit {

// Lanes of the `nbytes` bytes at `p`, which stand at byte `offset` of their stream. Any alignment.
Lanes range_lanes(const Kernels& kernels, const KeyTable& keys, const u8* p, u64 nbytes,
                  u64 offset);

// The same, split over `threads` threads (0: one per CPU that this process may use) where it pays.
Lanes parallel_lanes(const Kernels& kernels, const KeyTable& keys, const u8* p, u64 nbytes,
                     u64 offset, unsigned threads);

}  // namespace repro_audit

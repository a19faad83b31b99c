// A plain read of memory, the yardstick of every speed this engine states.
#pragma once

#include "kernels.hpp"

namespace repro_audit {

// Sum of the whole 64-bit words of the bytes, shared out as parallel_lanes does.
u64 read_sum(const Kernels& kernels, const u8* p, u64 nbytes, unsigned threads);

}  // namespace repro_audit

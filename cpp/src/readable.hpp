// Whether memory is there to be read.
#pragma once

#include "repro_audit/config.hpp"

namespace repro_audit {

// False where the first or the last of `nbytes` bytes at `p` is not mapped, or lies beyond the end
// of a mapped file: what is left of an mmap that was closed, or of a file that was cut. True where
// the system cannot tell. Some 0.3 microseconds.
bool readable(const u8* p, u64 nbytes);

}  // namespace repro_audit

// What the two files of AVX-512 kernels share.
#pragma once

#include "kernels.hpp"

namespace repro_audit {

// As Kernels::divergence; avx512_divergence.cpp.
u64 avx512_divergence(Tag tag, const u8* a, const u8* b, u64 first, u64 count, Divergence& result);

}  // namespace repro_audit

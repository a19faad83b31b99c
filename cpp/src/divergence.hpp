// ULP divergence of two tensors in memory.
#pragma once

#include "repro_audit/ulp.hpp"
#include "strided.hpp"

namespace repro_audit {

// Elements of `a` (of dtype `tag_a`) against those of `b`, which has the same sizes. Where the tags
// differ, both must be floats, and those of `a` are rounded to the format of `b`, the narrower.
// False where the dtypes cannot be compared so.
bool compare(const Kernels& kernels, const Strided& a, Tag tag_a, const Strided& b, Tag tag_b,
             unsigned threads, Divergence& result);

}  // namespace repro_audit

// ULP divergence of two tensors in memory.
#pragma once

#include <vector>

#include "repro_audit/ulp.hpp"
#include "strided.hpp"

namespace repro_audit {

// Elements of `a` (of dtype `tag_a`) against those of `b`, which has the same sizes. Where the tags
// differ, both must be floats, and those of `a` are rounded to the format of `b`, the narrower.
// False where the dtypes cannot be compared so.
bool compare(const Kernels& kernels, const Strided& a, Tag tag_a, const Strided& b, Tag tag_b,
             unsigned threads, Divergence& result);

// What the elements of one channel differ by: those of one index in one dimension.
struct Channel {
  u64 differing = 0;
  u64 unordered = 0;
  u64 max_ulp = 0;
};

// As `compare`, for each channel: element i of the row-major order is of channel
// i / inner % channels.size(). Adds to `channels`.
bool compare_channels(const Kernels& kernels, const Strided& a, Tag tag_a, const Strided& b,
                      Tag tag_b, u64 inner, unsigned threads, std::vector<Channel>& channels);

}  // namespace repro_audit

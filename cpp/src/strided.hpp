// Strided tensors as runs of their streams.
#pragma once

#include <functional>
#include <vector>

#include "kernels.hpp"
#include "repro_audit/multiset.hpp"

namespace repro_audit {

// A tensor in memory. Strides are in elements and may be zero or negative; itemsize is 1, 2, 4, 8
// or 16.
struct Strided {
  const u8* data;
  std::vector<u64> sizes;
  std::vector<i64> strides;
  u64 itemsize;

  u64 numel() const;
  u64 nbytes() const { return numel() * itemsize; }
};

// Where a box's elements stand in the stream of the tensor that it is a part of: element
// `origin`, and `weights[d]` elements from one index of dimension d to the next.
struct Placement {
  u64 origin;
  std::vector<u64> weights;

  // Of a tensor that is no part of another.
  static Placement whole(const Strided& view);
};

// The same elements in the same order in fewer dimensions: those of size 1 dropped, neighbours that
// are one run of equal steps merged.
Strided simplified(Strided view);

// The same elements in another order, that of memory where possible: for what is blind to order.
Strided reordered(Strided view);

// Copies elements first ... first + count - 1 of the stream to `to`, one after another.
void gather(const Strided& view, u64 first, u64 count, u8* to);

// Copies `count` sampled elements (SPEC.md, section 11) to `to`; 0 < count <= numel.
void sample(const Strided& view, u64 count, u8* to);

// Lanes of the view's stream; `threads` as in parallel_lanes.
Lanes strided_lanes(const Kernels& kernels, const KeyTable& keys, const Strided& view,
                    unsigned threads);

// Lanes of a box: of its rows, each at its place in the stream of the whole (SPEC.md, section 5).
Lanes box_lanes(const Kernels& kernels, const KeyTable& keys, const Strided& view,
                const Placement& placement, unsigned threads);

// Multiset lanes of the view's elements.
Lanes multiset_lanes(const Kernels& kernels, const MultisetKeys& keys, const Strided& view,
                     unsigned threads);

}  // namespace repro_audit

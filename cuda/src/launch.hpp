// Launches of the kernels. All are asynchronous: they return when the work is queued.
//
// Addresses are of the device's memory. Throws std::runtime_error with CUDA's words where a launch
// is refused.
#pragma once

#include "../../cpp/src/strided.hpp"
#include "repro_audit/cuda/work.hpp"

namespace repro_audit::cuda {

// A stream of a device: a cudaStream_t, null for the legacy default stream.
struct Queue {
  int device;
  void* stream;
};

// Each adds to the two u64 at `out`, which the caller has set to 0 or to the sums so far.
void add_range(u64 address, u64 nbytes, u64 offset, u64 key, u64 out, Queue queue);
void add_strided(const Strided& view, u64 key, u64 out, Queue queue);
void add_multiset(const Strided& view, u64 key, u64 out, Queue queue);

// Adds the lanes of `count` tensors, described by the rows at `rows`, to 2 * count u64 at `out`, in
// one launch; `units` is the sum of their units.
void add_table(u64 rows, u64 count, u64 units, u64 key, u64 out, Queue queue);

// How many records `compare` writes for `numel` elements on a device.
u64 compare_records(u64 numel, int device);

// Writes compare_records(numel) Divergences to `records`: merged, they are what `numel` numbers of
// one format at `a` and `b` differ by, except numel and the histogram's share of equal pairs. False
// where the dtype has no distance.
bool compare(Tag tag, u64 a, u64 b, u64 numel, u64 records, Queue queue);

struct Versions {
  int runtime;
  int driver;  // 0 where there is none
};
// Asks the driver's library without initialising it: a process that did could no longer fork, nor
// choose the devices that it sees.
Versions versions();

}  // namespace repro_audit::cuda

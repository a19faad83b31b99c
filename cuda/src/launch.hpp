// Launches of the kernels. All are asynchronous: they return when the work is queued.
//
// Addresses are of the device's memory. Throws std::runtime_error with CUDA's words where a launch
// is refused.
#pragma once

#include <vector>

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

// Adds the lanes of tensors whose bytes lie together to two u64 each at `out`: one launch for 1,360
// of them. `first_unit` of the rows is set here.
void add_table(std::vector<Row> rows, u64 key, u64 out, Queue queue);

// Copies `count` elements of the view's stream, as sample_index chooses them, to `out`.
void sample(const Strided& view, u64 count, u64 out, Queue queue);

// Loads the kernels of add_range, add_strided, add_table and sample on a device. A kernel that is
// not loaded is at its first launch, and that may end what another thread captures into a graph.
void load_digests(int device);
void load_samples(int device);

// A stream of the device that does not wait for the default one; it lives as long as the process.
void* make_stream(int device);

// How many records `compare` writes for `numel` elements on a device.
u64 compare_records(u64 numel, int device);

// Writes compare_records(numel) Divergences to `records`: merged, they are what `numel` numbers of
// one format at `a` and `b` differ by, except numel and the histogram's share of equal pairs. False
// where the dtype has no distance.
bool compare(Tag tag, u64 a, u64 b, u64 numel, u64 records, Queue queue);

}  // namespace repro_audit::cuda

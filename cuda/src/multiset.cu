// Launches of the multiset digest's kernels.
#include "grid.hpp"
#include "pieces.hpp"
#include "repro_audit/cuda/kernels.cuh"

namespace repro_audit::cuda {

void add_multiset(const Strided& view, u64 key, u64 out, Queue queue) {
  if (view.numel() == 0) return;
  const u64 nbytes = view.nbytes();
  const OnDevice on(queue.device);
  const unsigned grid = grid_for(nbytes / 512 + 1, kThreads, kThreadwise, queue.device);
  with_elements(view, [&]<class Source>(auto width, const Source& source) {
    enqueue(queue, "the multiset digest's kernel", grid, kThreads, multiset_kernel<width, Source>,
            source, nbytes, key, reinterpret_cast<u64*>(out));
  });
}

}  // namespace repro_audit::cuda

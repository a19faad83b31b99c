// Launches of the multiset digest's kernels.
#include "grid.hpp"
#include "pieces.hpp"
#include "repro_audit/cuda/kernels.cuh"

namespace repro_audit::cuda {
namespace {

template <int kItem>
void launch(const Strided& view, u64 key, u64 out, Queue queue) {
  const u64 nbytes = view.nbytes();
  const unsigned grid = grid_for(nbytes / 512 + 1, kThreads, kThreadwise, queue.device);
  const auto run = [&]<class Source>(const Source& source) {
    enqueue(queue, "the multiset digest's kernel", grid, kThreads, multiset_kernel<kItem, Source>,
            source, nbytes, key, reinterpret_cast<u64*>(out));
  };
  const u64 address = reinterpret_cast<u64>(view.data);
  if (view.sizes.size() == 1 && view.strides[0] == 1) {
    if (address % 16 == 0) return run(Contiguous<16>{address, 0, nbytes});
    if (address % kItem == 0) return run(Contiguous<kItem>{address, 0, nbytes});
    return run(Contiguous<1>{address, 0, nbytes});
  }
  if (piece_bytes(view, kItem) == kItem) return run(pieces_of<kItem>(view));
  run(pieces_of<1>(view));
}

}  // namespace

void add_multiset(const Strided& given, u64 key, u64 out, Queue queue) {
  if (given.numel() == 0) return;
  const Strided view = reordered(given);
  const OnDevice on(queue.device);
  switch (view.itemsize) {
    case 1: launch<1>(view, key, out, queue); break;
    case 2: launch<2>(view, key, out, queue); break;
    case 4: launch<4>(view, key, out, queue); break;
    case 8: launch<8>(view, key, out, queue); break;
    default: launch<16>(view, key, out, queue);
  }
}

}  // namespace repro_audit::cuda

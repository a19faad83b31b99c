// Launches of the kernels of ULP divergence: each block of threads writes one record, which the
// host merges.
#include "grid.hpp"
#include "repro_audit/cuda/kernels.cuh"

namespace repro_audit::cuda {
namespace {

unsigned grid(u64 numel, int device) {
  // 8 bytes at most: a quad holds two elements at least.
  return grid_for(numel / 64 + 1, kUlpThreads, kThreadwise, device);
}

}  // namespace

u64 compare_records(u64 numel, int device) { return grid(numel, device); }

bool compare(Tag tag, u64 a, u64 b, u64 numel, u64 records, Queue queue) {
  const OnDevice on(queue.device);
  return with_format(tag, [&](auto format) {
    using Format = decltype(format);
    constexpr int kItem = sizeof(typename Format::Bits);
    const auto run = [&]<class Source>(const Source& x, const Source& y) {
      enqueue(queue, "the kernel of ULP divergence", grid(numel, queue.device), kUlpThreads,
              ulp_kernel<Format, Source>, x, y, numel, reinterpret_cast<Divergence*>(records));
    };
    const u64 nbytes = numel * kItem;
    if ((a | b) % 16 == 0) return run(Contiguous<16>{a, 0, nbytes}, Contiguous<16>{b, 0, nbytes});
    if ((a | b) % kItem != 0) throw std::invalid_argument("elements at unaligned addresses");
    run(Contiguous<kItem>{a, 0, nbytes}, Contiguous<kItem>{b, 0, nbytes});
  });
}

}  // namespace repro_audit::cuda

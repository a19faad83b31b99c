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
  const unsigned count = grid(numel, queue.device);
  auto* out = reinterpret_cast<Divergence*>(records);
  const auto stream = static_cast<cudaStream_t>(queue.stream);
  const bool known = with_format(tag, [&](auto format) {
    using Format = decltype(format);
    constexpr int kItem = sizeof(typename Format::Bits);
    const u64 nbytes = numel * kItem;
    if ((a | b) % 16 == 0) {
      using Source = Contiguous<16>;
      ulp_kernel<Format><<<count, kUlpThreads, 0, stream>>>(Source{a, 0, nbytes},
                                                            Source{b, 0, nbytes}, numel, out);
    } else {
      if ((a | b) % kItem != 0) throw std::invalid_argument("elements at unaligned addresses");
      using Source = Contiguous<kItem>;
      ulp_kernel<Format><<<count, kUlpThreads, 0, stream>>>(Source{a, 0, nbytes},
                                                            Source{b, 0, nbytes}, numel, out);
    }
  });
  require(cudaGetLastError(), "the kernel of ULP divergence");
  return known;
}

}  // namespace repro_audit::cuda

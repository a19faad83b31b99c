// Kernels of ULP divergence: each block of threads writes one record, which the host merges.
#include "grid.hpp"
#include "reduce.cuh"

namespace repro_audit::cuda {
namespace {

constexpr unsigned kUlpThreads = 128;
constexpr unsigned kUlpWarps = kUlpThreads / 32;

template <class Format, class Source>
__global__ void __launch_bounds__(kUlpThreads)
    ulp_kernel(Source a, Source b, u64 numel, Divergence* records) {
  // One histogram a warp: where all elements differ by as much, every thread counts into one bin.
  __shared__ u32 bins[kUlpWarps][kHistogramBins];
  __shared__ unsigned char memory[kUlpThreads * sizeof(Figures)];
  Figures* all = reinterpret_cast<Figures*>(memory);
  for (unsigned i = threadIdx.x; i < kUlpWarps * kHistogramBins; i += kUlpThreads) {
    bins[i / kHistogramBins][i % kHistogramBins] = 0;
  }
  __syncthreads();
  u32* mine = bins[threadIdx.x / 32];
  Figures figures;
  ulp_work<Format>(a, b, numel, u64{blockIdx.x} * kUlpThreads + threadIdx.x,
                   u64{gridDim.x} * kUlpThreads, figures,
                   [=](int bin) { atomicAdd(mine + bin, 1U); });
  all[threadIdx.x] = figures;
  __syncthreads();
  for (unsigned step = kUlpThreads / 2; step > 0; step /= 2) {
    if (threadIdx.x < step) all[threadIdx.x].merge(all[threadIdx.x + step]);
    __syncthreads();
  }
  Divergence* record = records + blockIdx.x;
  if (threadIdx.x == 0) static_cast<Figures&>(*record) = all[0];
  for (unsigned bin = threadIdx.x; bin < kHistogramBins; bin += kUlpThreads) {
    u64 sum = 0;
    for (unsigned warp = 0; warp < kUlpWarps; ++warp) sum += bins[warp][bin];
    record->histogram[bin] = sum;
  }
}

unsigned grid(u64 numel, int device) {
  // 8 bytes at most: a quad holds two elements at least.
  return grid_for(numel / 64 + 1, kUlpThreads, 16, device);
}

}  // namespace

u64 compare_records(u64 numel, int device) { return grid(numel, device); }

bool compare(Tag tag, u64 a, u64 b, u64 numel, u64 records, Queue queue) {
  require(cudaSetDevice(queue.device), "cudaSetDevice");
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

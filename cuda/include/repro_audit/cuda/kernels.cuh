// The kernels themselves, for nvcc and for NVRTC at run time.
//
// Each adds to, or writes, what its parameters name, and nothing else; sums are modulo 2^64 and
// maxima exact, so the order of threads changes nothing.
#pragma once

#include "repro_audit/cuda/work.hpp"

namespace repro_audit::cuda {

__device__ inline Lanes warp_sum(Lanes sum) {
  REPRO_AUDIT_UNROLL
  for (int step = 16; step > 0; step /= 2) {
    sum.l0 += __shfl_xor_sync(~0U, sum.l0, step);
    sum.l1 += __shfl_xor_sync(~0U, sum.l1, step);
  }
  return sum;
}

__device__ inline void add_to(u64* out, Lanes sum) {
  static_assert(sizeof(unsigned long long) == sizeof(u64));
  atomicAdd(reinterpret_cast<unsigned long long*>(out), sum.l0);
  atomicAdd(reinterpret_cast<unsigned long long*>(out + 1), sum.l1);
}

// Of all kThreads threads of a block: one addition to memory.
__device__ inline void block_add(u64* out, Lanes sum) {
  __shared__ Lanes sums[kThreads / kWarp];
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  Lanes total;
  for (unsigned i = 0; i < kThreads / kWarp; ++i) total += sums[i];
  add_to(out, total);
}

__device__ inline u64 thread_index() { return u64{blockIdx.x} * kThreads + threadIdx.x; }
__device__ inline u64 thread_count() { return u64{gridDim.x} * kThreads; }

template <class Source>
__global__ void __launch_bounds__(kThreads)
    stream_kernel(const __grid_constant__ Source source, u64 begin, u64 end, u64 key, u64* out) {
  block_add(out, stream_work(source, begin, end, key, thread_index(), thread_count()));
}

template <int kRows>
__global__ void __launch_bounds__(kThreads) table_kernel(const __grid_constant__ Table<kRows> table,
                                                         u64 count, u64 units, u64 key, u64* out) {
  table_work(table.rows, count, units, key, thread_index(), thread_count(),
             [=](u64 row, Lanes part) {
               part = warp_sum(part);
               if (threadIdx.x % kWarp == 0) add_to(out + 2 * row, part);
             });
}

template <int kItem, class Source>
__global__ void __launch_bounds__(kThreads)
    multiset_kernel(const __grid_constant__ Source source, u64 nbytes, u64 key, u64* out) {
  block_add(out, multiset_work<kItem>(source, nbytes, key, thread_index(), thread_count()));
}

template <int kItem>
__global__ void __launch_bounds__(kThreads)
    sample_kernel(const __grid_constant__ Pieces<kItem> pieces, u64 count, u64 out) {
  sample_work<kItem>(pieces, count, out, thread_index(), thread_count());
}

// Counters of a warp in shared memory.
class SharedCounters {
 public:
#if defined(__CUDACC__)
  // Handed to itself: else their address would be made again for every count, from the number of
  // the thread.
  __device__ explicit SharedCounters(const u32* first)
      : first_(__shfl_sync(~0U, static_cast<u32>(__cvta_generic_to_shared(first)), 0)) {}

  __device__ void count(int i) const {
    asm volatile("red.shared.add.u32 [%0], 1;"
                 :
                 : "r"(first_ + 4 * static_cast<u32>(i))
                 : "memory");
  }

 private:
  u32 first_;
#else
  explicit SharedCounters(u32* first) : first_(first) {}
  void count(int i) const { atomicAdd(first_ + i, 1U); }

 private:
  u32* first_;
#endif
};

template <class Format, class Source>
__global__ void __launch_bounds__(kUlpThreads, kUlpBlocks)
    ulp_kernel(Source a, Source b, u64 numel, Divergence* records) {
  constexpr unsigned kUlpWarps = kUlpThreads / 32;
  // One histogram a warp: where all elements differ by as much, every thread counts into one bin.
  __shared__ u32 bins[kUlpWarps][kHistogramBins];
  alignas(16) __shared__ unsigned char memory[kUlpThreads * sizeof(Figures)];
  Figures* all = reinterpret_cast<Figures*>(memory);
  for (unsigned i = threadIdx.x; i < kUlpWarps * kHistogramBins; i += kUlpThreads) {
    bins[i / kHistogramBins][i % kHistogramBins] = 0;
  }
  __shared__ Reached<Format> reached;
  if (threadIdx.x == 0) reached.clear();
  __syncthreads();
  const SharedCounters mine(bins[threadIdx.x / 32]);
  all[threadIdx.x] = Figures{};
  ulp_work<Format>(a, b, numel, u64{blockIdx.x} * kUlpThreads + threadIdx.x,
                   u64{gridDim.x} * kUlpThreads, reached, all[threadIdx.x],
                   [=](int bin) { mine.count(bin); });
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
    record->histogram[bin] = bin == 0 ? all[0].signed_zero + all[0].nan_payload : sum;
  }
}

}  // namespace repro_audit::cuda

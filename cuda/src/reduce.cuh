// From threads to a block of threads, from blocks to memory.
#pragma once

#include "repro_audit/cuda/work.hpp"

namespace repro_audit::cuda {

inline constexpr unsigned kThreads = 256;

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

}  // namespace repro_audit::cuda

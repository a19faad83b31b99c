// The emulation is worth what it finds: kernels that are wrong on purpose.
//
// With an argument it runs a kernel that races, for ThreadSanitizer to stop.
#include <cuda_runtime.h>

#include <cstring>
#include <string>
#include <vector>

#include "check.hpp"

namespace {

using emulated::Call;
using emulated::machine;
using emulated::Schedule;

constexpr unsigned kThreads = 96;

// The status of a launch, and what running it violates.
struct Outcome {
  cudaError_t status;
  std::string violation;
};

template <class... Parameters>
Outcome run(void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::type_identity_t<Parameters>... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  Outcome outcome{cudaErrorInvalidValue, ""};
  try {
    outcome.status = cudaLaunchKernelEx(&config, kernel, arguments...);
    emulated::synchronize();
  } catch (const emulated::Violation& violation) {
    outcome.violation = violation.what();
  }
  return outcome;
}

bool tells(const Outcome& outcome, const char* part) {
  return outcome.violation.find(part) != std::string::npos;
}

// Right: each thread's sum over its block, by way of shuffles, shared memory and barriers.
__global__ void sums_kernel(unsigned long long* out, unsigned long long* total) {
  __shared__ unsigned long long sums[kThreads / 32];
  unsigned long long sum = threadIdx.x;
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(~0U, sum, step);
  const unsigned long long first = __shfl_sync(~0U, sum, 0);
  if (threadIdx.x % 32 == 5) sums[threadIdx.x / 32] = first;
  __syncthreads();
  sum = 0;
  for (const unsigned long long part : sums) sum += part;
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
  if (threadIdx.x > 1) return;
  __syncthreads();
  atomicAdd(total, sum * gridDim.x);
}

__global__ void lanes_missing_kernel() {
  if (threadIdx.x != 40) __shfl_xor_sync(~0U, 1U, 1);
}

__global__ void lanes_apart_kernel() {
  if (threadIdx.x % 2 == 0) {
    __shfl_xor_sync(~0U, 1U, 1);
  } else {
    __shfl_xor_sync(~0U, 1U, 1);
  }
}

__global__ void lanes_at_barrier_kernel() {
  if (threadIdx.x % 32 == 0) {
    __syncthreads();
  } else {
    __shfl_xor_sync(~0U, 1U, 1);
  }
}

__global__ void mask_kernel() { __shfl_sync(0xFFFFU, 1U, 1); }
__global__ void lane_kernel() { __shfl_sync(~0U, 1U, 32); }
__global__ void steps_kernel() { __shfl_xor_sync(~0U, 1U, threadIdx.x == 3 ? 2 : 1); }

__global__ void barriers_apart_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

// What is in shared memory before anyone wrote there.
__global__ void uninitialized_kernel(unsigned* out) {
  __shared__ unsigned left;
  if (threadIdx.x != 0) return;
  out[blockIdx.x] = left;
  left = 0;
}

// Adds without a barrier, in shared memory or in all.
__global__ void race_kernel(unsigned* out, bool shared) {
  __shared__ unsigned sum;
  if (threadIdx.x == 0) sum = 0;
  __syncthreads();
  if (shared && threadIdx.x < 2) ++sum;
  if (!shared && threadIdx.x == 0) ++*out;
}

void right() {
  for (const Schedule::Order order :
       {Schedule::Order::forward, Schedule::Order::backward, Schedule::Order::shuffled}) {
    for (const bool eager : {false, true}) {
      machine().schedule = {order, eager, 7};
      std::vector<unsigned long long> out(5 * kThreads);
      unsigned long long total = 0;
      const Outcome outcome = run(sums_kernel, dim3(5), dim3(kThreads), out.data(), &total);
      CHECK(outcome.status == cudaSuccess && outcome.violation.empty());
      for (const unsigned long long sum : out) CHECK(sum == kThreads * (kThreads - 1) / 2);
      CHECK(total == 5 * 2 * 5 * out[0]);
    }
  }
}

void wrong() {
  const dim3 one(1);
  const dim3 block(kThreads);
  for (const bool eager : {false, true}) {
    machine().schedule = {Schedule::Order::shuffled, eager, 3};
    CHECK(tells(run(lanes_missing_kernel, one, block), "wait for ever: 31 at the shuffle"));
    CHECK(tells(run(lanes_apart_kernel, one, block), "lanes are apart"));
    CHECK(tells(run(lanes_at_barrier_kernel, one, block), "wait for ever"));
    CHECK(tells(run(mask_kernel, one, block), "a mask without"));
    CHECK(tells(run(lane_kernel, one, block), "no such lane"));
    CHECK(tells(run(steps_kernel, one, block), "different steps"));
    CHECK(tells(run(barriers_apart_kernel, one, block), "different barriers"));
    // It goes on after that.
    right();
    std::vector<unsigned> left(8);
    CHECK(run(uninitialized_kernel, dim3(8), block, left.data()).violation.empty());
    for (const unsigned value : left) CHECK(value == 0xA5A5A5A5);
  }
}

void limits() {
  const dim3 block(kThreads);
  dim3 deep(1);
  deep.z = 65536;
  for (const dim3 grid : {dim3(0), deep, dim3(0x80000000)}) {
    CHECK(run(mask_kernel, grid, block).status == cudaErrorInvalidConfiguration);
  }
  for (const dim3 threads : {dim3(0), dim3(1025)}) {
    CHECK(run(mask_kernel, dim3(1), threads).status == cudaErrorInvalidConfiguration);
  }
  CHECK(tells(run(mask_kernel, dim3(1), dim3(33)), "whole warps"));
}

}  // namespace

int main(int count, char** arguments) {
  unsigned sum = 0;
  if (count > 1) {
    run(race_kernel, dim3(2), dim3(kThreads), &sum, std::strcmp(arguments[1], "shared") == 0);
    return 0;
  }
  right();
  wrong();
  limits();
  return conclude("what the emulation finds");
}

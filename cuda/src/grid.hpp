// How many blocks of threads a launch has, and what CUDA says of it.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <stdexcept>
#include <string>

#include "launch.hpp"

namespace repro_audit::cuda {

inline void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

// The calling thread's current device is `device` for as long as this lives. It is the program's as
// well, whatever copy of CUDA's runtime asks, so it must be what it was afterwards.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    require(cudaGetDevice(&before_), "cudaGetDevice");
    if (before_ == device) return;
    require(cudaSetDevice(device), "cudaSetDevice");
    changed_ = true;
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() {
    if (changed_) cudaSetDevice(before_);
  }

 private:
  int before_ = 0;
  bool changed_ = false;
};

inline unsigned multiprocessors(int device) {
  constexpr int kMost = 64;
  static std::array<std::atomic<int>, kMost> known{};
  std::atomic<int>* cell =
      device >= 0 && device < kMost ? &known[static_cast<std::size_t>(device)] : nullptr;
  int count = cell == nullptr ? 0 : cell->load();
  if (count == 0) {
    require(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
            "cudaDeviceGetAttribute");
    if (cell != nullptr) cell->store(count);
  }
  return static_cast<unsigned>(count);
}

// Enough for `warps` warps of work, and no more than fill the device some times over.
inline unsigned grid_for(u64 warps, unsigned threads, unsigned per_multiprocessor, int device) {
  const u64 wanted = (warps * 32 + threads - 1) / threads;
  const u64 most = u64{multiprocessors(device)} * per_multiprocessor;
  return static_cast<unsigned>(std::max<u64>(1, std::min(wanted, most)));
}

// Queues a kernel on the queue's device, which is current. The status is this launch's own:
// cudaGetLastError would tell what an earlier call left behind as well.
template <class... Parameters, class... Arguments>
void enqueue(Queue queue, const char* what, unsigned grid, unsigned threads,
             void (*kernel)(Parameters...), const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(grid);
  config.blockDim = dim3(threads);
  config.stream = static_cast<cudaStream_t>(queue.stream);
  require(cudaLaunchKernelEx(&config, kernel, arguments...), what);
}

// Has a kernel loaded on the current device, which its first launch would otherwise do.
template <class... Parameters>
void load(void (*kernel)(Parameters...)) {
  cudaFuncAttributes attributes;
  require(cudaFuncGetAttributes(&attributes, kernel), "cudaFuncGetAttributes");
}

}  // namespace repro_audit::cuda

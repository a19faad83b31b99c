// How many blocks of threads a launch has, and what CUDA says of it.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "launch.hpp"

namespace repro_audit::cuda {

inline void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(status));
}

inline unsigned multiprocessors(int device) {
  int count = 0;
  require(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
          "cudaDeviceGetAttribute");
  return static_cast<unsigned>(count);
}

// Enough for `warps` warps of work, and no more than fill the device some times over.
inline unsigned grid_for(u64 warps, unsigned threads, unsigned per_multiprocessor, int device) {
  const u64 wanted = (warps * 32 + threads - 1) / threads;
  const u64 most = u64{multiprocessors(device)} * per_multiprocessor;
  return static_cast<unsigned>(std::max<u64>(1, std::min(wanted, most)));
}

}  // namespace repro_audit::cuda

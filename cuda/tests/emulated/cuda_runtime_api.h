// As much of CUDA's runtime as the sources use, by the same names, for tests on a machine without
// a GPU: kernels run on the host, and machine.hpp says how.
#pragma once

#include <cstddef>

#define CUDART_VERSION 13000

struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;

  dim3() = default;
  explicit dim3(unsigned count) : x(count) {}
};

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorInvalidResourceHandle = 400,
  cudaErrorLaunchOutOfResources = 701,
};

enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };

inline constexpr unsigned cudaStreamNonBlocking = 1;

struct CUstream_st;
using cudaStream_t = CUstream_st*;

struct cudaLaunchAttribute;

struct cudaFuncAttributes {
  int numRegs;
};

struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  std::size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
const char* cudaGetErrorString(cudaError_t error);

// What nvcc gives a .cu file: the words of the language, what a thread knows of itself, and
// launches.
#pragma once

#include <bit>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda_runtime_api.h"
#include "machine.hpp"

// Kernels are to be compiled as for a GPU, so without this there are none.
#if defined(__CUDA_ARCH__)
#define __global__
#define __device__
#define __grid_constant__
#define __launch_bounds__(...)
// A block runs on one thread of the host.
#define __shared__ static thread_local

#define __syncthreads() ::emulated::synchronize_block({__FILE__, __LINE__})
#define __shfl_xor_sync(mask, value, step) \
  ::emulated::exchange({__FILE__, __LINE__}, mask, value, ::emulated::Shuffle::exclusive_or, step)
#define __shfl_sync(mask, value, lane) \
  ::emulated::exchange({__FILE__, __LINE__}, mask, value, ::emulated::Shuffle::indexed, lane)
#endif

namespace emulated {

template <unsigned ThisThread::* kNumber>
struct Axes {
  struct {
    operator unsigned() const { return this_thread().*kNumber; }
  } x;
};

}  // namespace emulated

inline constexpr emulated::Axes<&emulated::ThisThread::index> threadIdx{};
inline constexpr emulated::Axes<&emulated::ThisThread::block> blockIdx{};
inline constexpr emulated::Axes<&emulated::ThisThread::blocks> gridDim{};
inline constexpr emulated::Axes<&emulated::ThisThread::threads> blockDim{};

// Relaxed, as on a GPU: no thread learns anything else by it.
template <class Number>
Number atomicAdd(Number* to, std::type_identity_t<Number> number) {
  static_assert(std::is_same_v<Number, unsigned> || std::is_same_v<Number, unsigned long long>);
  return __atomic_fetch_add(to, number, __ATOMIC_RELAXED);
}
template <class Number>
Number atomicMax(Number* to, std::type_identity_t<Number> number) {
  static_assert(std::is_same_v<Number, unsigned> || std::is_same_v<Number, unsigned long long>);
  Number before = __atomic_load_n(to, __ATOMIC_RELAXED);
  while (before < number && !__atomic_compare_exchange_n(to, &before, number, true,
                                                         __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return before;
}

struct alignas(16) ulonglong2 {
  unsigned long long x;
  unsigned long long y;
};
template <class Type>
Type __ldg(const Type* from) {
  return *from;
}

inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }

namespace emulated {

// Where parameters of these types end, one after another, each aligned.
template <class... Parameters>
constexpr std::size_t parameter_bytes() {
  std::size_t end = 0;
  ((end = (end + alignof(Parameters) - 1) / alignof(Parameters) * alignof(Parameters) +
          sizeof(Parameters)),
   ...);
  return end;
}

template <class Number>
Number exchange(Place place, unsigned mask, Number value, Shuffle shuffle, int operand) {
  static_assert(std::is_integral_v<Number> && sizeof(Number) <= sizeof(unsigned long long));
  return static_cast<Number>(
      exchange_bits({place, shuffle, mask, operand}, static_cast<unsigned long long>(value)));
}

}  // namespace emulated

template <class... Parameters>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, void (*kernel)(Parameters...)) {
  return emulated::load_kernel(reinterpret_cast<const void*>(kernel));
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...));
  constexpr std::size_t kBytes = emulated::parameter_bytes<Parameters...>();
  static_assert(kBytes <= 32764, "more than CUDA's limit");
  const std::tuple<Parameters...> given(std::forward<Arguments>(arguments)...);
  return emulated::queue_launch(*config, reinterpret_cast<const void*>(kernel), kBytes,
                                [kernel, given] { std::apply(kernel, given); });
}

// Kernels of the digest: of one stream, contiguous or strided, and of many in one launch.
#include "grid.hpp"
#include "pieces.hpp"
#include "reduce.cuh"

namespace repro_audit::cuda {
namespace {

template <class Source>
__global__ void __launch_bounds__(kThreads)
    stream_kernel(const __grid_constant__ Source source, u64 begin, u64 end, u64 key, u64* out) {
  block_add(out, stream_work(source, begin, end, key, thread_index(), thread_count()));
}

__global__ void __launch_bounds__(kThreads)
    table_kernel(const Row* rows, u64 count, u64 units, u64 key, u64* out) {
  table_work(rows, count, units, key, thread_index(), thread_count(), [=](u64 row, Lanes part) {
    part = warp_sum(part);
    if (threadIdx.x % kWarp == 0) add_to(out + 2 * row, part);
  });
}

constexpr unsigned kPerMultiprocessor = 8;

}  // namespace

void add_range(u64 address, u64 nbytes, u64 offset, u64 key, u64 out, Queue queue) {
  if (nbytes == 0) return;
  require(cudaSetDevice(queue.device), "cudaSetDevice");
  const u64 blocks = nbytes / kBlockBytes + 2;
  const unsigned grid = grid_for(blocks, kThreads, kPerMultiprocessor, queue.device);
  with_range(address, nbytes, offset, [&](auto source) {
    stream_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(queue.stream)>>>(
        source, offset, offset + nbytes, key, reinterpret_cast<u64*>(out));
  });
  require(cudaGetLastError(), "the digest's kernel");
}

void add_strided(const Strided& given, u64 key, u64 out, Queue queue) {
  const u64 nbytes = given.nbytes();
  if (nbytes == 0) return;
  const Strided view = simplified(given);
  if (view.sizes.size() == 1 && view.strides[0] == 1) {
    return add_range(reinterpret_cast<u64>(view.data), nbytes, 0, key, out, queue);
  }
  require(cudaSetDevice(queue.device), "cudaSetDevice");
  const unsigned grid =
      grid_for(nbytes / kBlockBytes + 1, kThreads, kPerMultiprocessor, queue.device);
  with_pieces(view, 16, [&](const auto& source) {
    stream_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(queue.stream)>>>(
        source, u64{0}, nbytes, key, reinterpret_cast<u64*>(out));
  });
  require(cudaGetLastError(), "the strided digest's kernel");
}

void add_table(u64 rows, u64 count, u64 units, u64 key, u64 out, Queue queue) {
  if (units == 0) return;
  require(cudaSetDevice(queue.device), "cudaSetDevice");
  const unsigned grid = grid_for(units, kThreads, kPerMultiprocessor, queue.device);
  table_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(queue.stream)>>>(
      reinterpret_cast<const Row*>(rows), count, units, key, reinterpret_cast<u64*>(out));
  require(cudaGetLastError(), "the table's kernel");
}

}  // namespace repro_audit::cuda

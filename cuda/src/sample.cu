// Launches of the kernel that gathers sampled elements; a stream of our own.
#include "grid.hpp"
#include "pieces.hpp"
#include "repro_audit/cuda/kernels.cuh"

namespace repro_audit::cuda {
namespace {

template <int kItem>
void launch(const Strided& view, u64 count, u64 out, Queue queue) {
  const unsigned grid = grid_for(count / kWarp + 1, kThreads, kThreadwise, queue.device);
  enqueue(queue, "the kernel that samples", grid, kThreads, sample_kernel<kItem>,
          pieces_of<kItem>(view), count, out);
}

}  // namespace

void sample(const Strided& given, u64 count, u64 out, Queue queue) {
  if (count == 0) return;
  const Strided view = simplified(given);
  if (reinterpret_cast<u64>(view.data) % view.itemsize != 0) {
    throw std::invalid_argument("elements at unaligned addresses");
  }
  const OnDevice on(queue.device);
  switch (view.itemsize) {
    case 1: launch<1>(view, count, out, queue); break;
    case 2: launch<2>(view, count, out, queue); break;
    case 4: launch<4>(view, count, out, queue); break;
    case 8: launch<8>(view, count, out, queue); break;
    default: launch<16>(view, count, out, queue);
  }
}

void load_samples(int device) {
  const OnDevice on(device);
  load(sample_kernel<1>);
  load(sample_kernel<2>);
  load(sample_kernel<4>);
  load(sample_kernel<8>);
  load(sample_kernel<16>);
}

void* make_stream(int device) {
  const OnDevice on(device);
  cudaStream_t stream = nullptr;
  require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  return stream;
}

}  // namespace repro_audit::cuda

// A machine with CUDA devices that exist only here. Kernels wait in a queue until `synchronize`,
// and then run on the host: a block's threads are fibers of one of the host's threads, of which
// several run blocks at once.
//
// It is stricter than a GPU: what CUDA leaves undefined, or a GPU only happens to do, is a
// Violation. With ThreadSanitizer it finds races too: fibers know of each other's writes by
// barriers alone, and blocks of different host threads not at all.
#pragma once

#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"

namespace emulated {

// What a kernel must not do; thrown by `synchronize`.
struct Violation : std::logic_error {
  using std::logic_error::logic_error;
};

// In which order blocks and a block's threads begin. With `eager`, those that can go on do so
// before others begin, so that one warp is as far ahead of the rest as barriers let it.
struct Schedule {
  enum class Order { forward, backward, shuffled };
  Order order = Order::forward;
  bool eager = false;
  unsigned seed = 0;
};

// The calls that can be made to fail.
enum class Call { none, get_device, set_device, get_attribute, create_stream, load, launch };

// A launch that was accepted.
struct Launch {
  int device;
  cudaStream_t stream;
  unsigned blocks;
  unsigned threads;
  std::size_t parameter_bytes;
  bool loaded;  // before it
};

// The machine: for tests to set, and to look at.
struct Machine {
  std::vector<int> multiprocessors = {4};  // of each device
  int current = 0;                         // device
  Schedule schedule;
  bool at_once = false;  // each launch is run before it returns
  Call failing = Call::none;
  cudaError_t error = cudaSuccess;
  std::vector<Launch> launches;
  std::set<std::pair<int, const void*>> loaded;  // kernels, by device
};
Machine& machine();

// Runs what is queued, in order. Throws Violation, and forgets the rest of the queue.
void synchronize();

// What follows is for cuda_runtime.h.

// In the source: of a barrier or a shuffle.
struct Place {
  const char* file;
  int line;
  bool operator==(const Place&) const = default;
};

enum class Shuffle { exclusive_or, indexed };

struct Exchange {
  Place place;
  Shuffle shuffle;
  unsigned mask;
  int operand;
};

struct ThisThread {
  unsigned index;
  unsigned block;
  unsigned blocks;
  unsigned threads;
};
const ThisThread& this_thread();
void synchronize_block(Place place);
unsigned long long exchange_bits(const Exchange& exchange, unsigned long long value);
cudaError_t load_kernel(const void* kernel);
cudaError_t queue_launch(const cudaLaunchConfig_t& config, const void* kernel,
                         std::size_t parameter_bytes, std::function<void()> thread);

}  // namespace emulated

#include "machine.hpp"

#include <link.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <span>
#include <thread>
#include <utility>

#include "block.hpp"

struct CUstream_st {
  int device;
};

namespace emulated {
namespace {

struct Queued {
  Launch launch;
  const void* kernel;
  std::function<void()> thread;
};

std::vector<Queued>& queue() {
  static std::vector<Queued> all;
  return all;
}

// The calling thread's variables of the program or library that a kernel is part of: the shared
// memory of all its kernels.
std::span<unsigned char> shared_memory(const void* kernel) {
  struct Search {
    ElfW(Addr) kernel;
    std::span<unsigned char> found;
  } search{reinterpret_cast<ElfW(Addr)>(kernel), {}};
  dl_iterate_phdr(
      [](dl_phdr_info* module, std::size_t, void* given) {
        Search& sought = *static_cast<Search*>(given);
        const std::span headers(module->dlpi_phdr, module->dlpi_phnum);
        const auto holds = [&](const ElfW(Phdr) & header) {
          return header.p_type == PT_LOAD &&
                 sought.kernel - module->dlpi_addr - header.p_vaddr < header.p_memsz;
        };
        if (std::ranges::none_of(headers, holds)) return 0;
        for (const ElfW(Phdr) & header : headers) {
          if (header.p_type != PT_TLS || module->dlpi_tls_data == nullptr) continue;
          sought.found = {static_cast<unsigned char*>(module->dlpi_tls_data), header.p_memsz};
        }
        return 1;
      },
      &search);
  return search.found;
}

std::vector<unsigned> order_of(unsigned blocks, const Schedule& schedule) {
  std::vector<unsigned> order(blocks);
  std::iota(order.begin(), order.end(), 0U);
  if (schedule.order == Schedule::Order::backward) std::reverse(order.begin(), order.end());
  if (schedule.order == Schedule::Order::shuffled) {
    std::shuffle(order.begin(), order.end(), std::minstd_rand(schedule.seed));
  }
  return order;
}

// Threads of the host, each of which runs its share of a launch's blocks.
class Host {
 public:
  Host() {
    for (unsigned i = 0; i < kThreads; ++i) {
      threads_.emplace_back([this, i] { serve(i); });
    }
  }

  ~Host() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      ++round_;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  // What the launch violates, or nothing.
  std::string run(const Queued& launch, const Schedule& schedule) {
    std::unique_lock lock(mutex_);
    given_ = &launch;
    schedule_ = schedule;
    order_ = order_of(launch.launch.blocks, schedule);
    busy_ = kThreads;
    ++round_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return busy_ == 0; });
    return std::exchange(violation_, {});
  }

 private:
  static constexpr unsigned kThreads = 2;

  void serve(unsigned number) {
    Multiprocessor multiprocessor;
    for (unsigned round = 1;; ++round) {
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return round_ == round; });
        if (stop_) return;
      }
      std::string violation;
      const std::span<unsigned char> shared = shared_memory(given_->kernel);
      for (std::size_t i = number; i < order_.size() && violation.empty(); i += kThreads) {
        // Nothing that is 0, a small number, or the same from one kernel to the next.
        std::memset(shared.data(), 0xA5, shared.size());
        const ThisThread first{0, order_[i], given_->launch.blocks, given_->launch.threads};
        violation = multiprocessor.run(given_->thread, first, schedule_);
      }
      const std::lock_guard lock(mutex_);
      if (!violation.empty()) violation_ = violation;
      if (--busy_ == 0) changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned round_ = 0;
  unsigned busy_ = 0;
  bool stop_ = false;
  const Queued* given_ = nullptr;
  Schedule schedule_;
  std::vector<unsigned> order_;
  std::string violation_;
  std::vector<std::thread> threads_;
};

bool fails(Call call) { return machine().failing == call; }

bool is_device(int device) {
  return device >= 0 && static_cast<std::size_t>(device) < machine().multiprocessors.size();
}

}  // namespace

Machine& machine() {
  static Machine one;
  return one;
}

void synchronize() {
  static Host host;
  const std::vector<Queued> launches = std::exchange(queue(), {});
  for (const Queued& launch : launches) {
    const std::string violation = host.run(launch, machine().schedule);
    if (!violation.empty()) throw Violation(violation);
  }
}

const ThisThread& this_thread() { return Multiprocessor::here().this_thread(); }

void synchronize_block(Place place) { Multiprocessor::here().synchronize_block(place); }

unsigned long long exchange_bits(const Exchange& exchange, unsigned long long value) {
  return Multiprocessor::here().exchange(exchange, value);
}

cudaError_t load_kernel(const void* kernel) {
  if (fails(Call::load)) return machine().error;
  machine().loaded.insert({machine().current, kernel});
  return cudaSuccess;
}

cudaError_t queue_launch(const cudaLaunchConfig_t& config, const void* kernel,
                         std::size_t parameter_bytes, std::function<void()> thread) {
  if (fails(Call::launch)) return machine().error;
  const auto within = [](dim3 size, unsigned x, unsigned y, unsigned z) {
    return size.x - 1 < x && size.y - 1 < y && size.z - 1 < z;
  };
  const dim3 grid = config.gridDim;
  const dim3 block = config.blockDim;
  if (!within(grid, 0x7FFFFFFF, 0xFFFF, 0xFFFF) || !within(block, 1024, 1024, 64) ||
      block.x * block.y * block.z > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  if (config.stream != nullptr && config.stream->device != machine().current) {
    return cudaErrorInvalidResourceHandle;
  }
  if (grid.y * grid.z * block.y * block.z != 1 || block.x % 32 != 0) {
    throw Violation("whole warps in one dimension are all that is emulated");
  }
  if (config.dynamicSmemBytes != 0 || config.numAttrs != 0) {
    throw Violation("dynamic shared memory and attributes of launches are not emulated");
  }
  const bool loaded = !machine().loaded.insert({machine().current, kernel}).second;
  const Launch launch{machine().current, config.stream, grid.x, block.x, parameter_bytes, loaded};
  machine().launches.push_back(launch);
  queue().push_back({launch, kernel, std::move(thread)});
  if (machine().at_once) synchronize();
  return cudaSuccess;
}

}  // namespace emulated

using emulated::Call;
using emulated::fails;
using emulated::is_device;
using emulated::machine;

cudaError_t cudaGetDevice(int* device) {
  if (fails(Call::get_device)) return machine().error;
  *device = machine().current;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (fails(Call::set_device)) return machine().error;
  if (!is_device(device)) return cudaErrorInvalidDevice;
  machine().current = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (fails(Call::get_attribute)) return machine().error;
  if (attribute != cudaDevAttrMultiProcessorCount) return cudaErrorInvalidValue;
  if (!is_device(device)) return cudaErrorInvalidDevice;
  *value = machine().multiprocessors[static_cast<std::size_t>(device)];
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (fails(Call::create_stream)) return machine().error;
  if (flags != cudaStreamNonBlocking) return cudaErrorInvalidValue;
  static std::vector<std::unique_ptr<CUstream_st>> all;
  all.push_back(std::make_unique<CUstream_st>(CUstream_st{machine().current}));
  *stream = all.back().get();
  return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorLaunchOutOfResources: return "too many resources requested for launch";
  }
  return "unrecognized error code";
}

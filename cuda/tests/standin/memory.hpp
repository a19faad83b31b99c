// The memory of devices that stand in for CUDA's: the host's own, which the host may not touch.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>

namespace standin {

constexpr int kDevices = 2;

c10::Allocator* allocator();
c10::Allocator* pinned_allocator();
bool is_pinned(const void* at);

// The device whose memory is there; -1 for the host's.
int device_at(const void* at);
std::size_t allocated(int device);
// Where the block begins that an address is in; null for the host's memory.
const void* block_at(const void* at);

// While one lives, every thread can read and write the block that an address is in.
class Opened {
 public:
  explicit Opened(const void* at);
  Opened(Opened&& other) noexcept : block_(other.block_) { other.block_ = nullptr; }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  ~Opened();

 private:
  void* block_ = nullptr;
};

void open_all();
void close_all();

}  // namespace standin

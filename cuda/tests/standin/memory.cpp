#include "memory.hpp"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>
#include <sys/mman.h>

#include <cstring>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "device.hpp"
#include "order.hpp"

namespace standin {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kArena = std::size_t{16} << 30;

struct Block {
  char* begin;
  std::size_t bytes;
  int device;
  c10::StreamId stream;  // on which it was asked for, and is given again
  int opened = 0;
  bool used = true;
};

// As the caching allocator of a GPU does, a block that was freed is given again as it was left.
struct Arena {
  std::mutex mutex;
  char* begin = nullptr;
  std::size_t used = 0;
  std::map<const char*, Block*> blocks;  // by where they begin
  std::map<std::tuple<int, c10::StreamId, std::size_t>, std::vector<Block*>> free;
  std::size_t taken[kDevices] = {};
  int all_opened = 0;

  void protect(Block& block) {
    const bool open = block.opened > 0 || all_opened > 0;
    TORCH_INTERNAL_ASSERT(
        !mprotect(block.begin, block.bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE));
  }

  Block* at(const void* address) {
    auto found = blocks.upper_bound(static_cast<const char*>(address));
    if (found == blocks.begin()) return nullptr;
    Block* block = std::prev(found)->second;
    return address < block->begin + block->bytes ? block : nullptr;
  }

  Block* take(std::size_t bytes, int device, c10::StreamId stream) {
    const std::size_t rounded = (bytes + kPage - 1) / kPage * kPage;
    auto& same = free[{device, stream, rounded}];
    Block* block;
    if (same.empty()) {
      if (!begin) {
        begin = static_cast<char*>(
            mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        TORCH_INTERNAL_ASSERT(begin != MAP_FAILED);
      }
      TORCH_CHECK_WITH(OutOfMemoryError, used + rounded + kPage <= kArena,
                       "the device that stands in for another is out of memory");
      block = new Block{begin + used, rounded, device, stream};
      used += rounded + kPage;  // a page that is never opened lies between
      blocks[block->begin] = block;
    } else {
      block = same.back();
      same.pop_back();
      block->used = true;
    }
    taken[device] += rounded;
    if (all_opened) protect(*block);
    return block;
  }

  void give_back(Block* block) {
    block->used = false;
    taken[block->device] -= block->bytes;
    free[{block->device, block->stream, block->bytes}].push_back(block);
    freed(block->begin);
  }
};

// Never destroyed: tensors are freed after main.
Arena& arena() {
  static Arena* made = new Arena;
  return *made;
}

void free_block(void* context) {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  a.give_back(static_cast<Block*>(context));
}

struct DeviceAllocator final : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    const int device = current_device();
    const c10::Device on(kType, static_cast<c10::DeviceIndex>(device));
    if (!bytes) return {nullptr, nullptr, &free_block, on};
    auto& a = arena();
    const std::lock_guard lock(a.mutex);
    Block* block = a.take(bytes, device, current_stream(device).id());
    return {block->begin, block, &free_block, on};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    const Opened target(to), source(from);
    std::memcpy(to, from, bytes);
  }
};

struct Pinned {
  std::mutex mutex;
  std::map<const char*, std::size_t> ranges;
};

Pinned& pinned() {
  static Pinned* made = new Pinned;
  return *made;
}

void free_pinned(void* at) {
  auto& p = pinned();
  {
    const std::lock_guard lock(p.mutex);
    p.ranges.erase(static_cast<char*>(at));
  }
  std::free(at);
}

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    void* at = std::aligned_alloc(64, (bytes + 64) / 64 * 64);
    auto& p = pinned();
    const std::lock_guard lock(p.mutex);
    p.ranges[static_cast<char*>(at)] = bytes;
    return {at, at, &free_pinned, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    std::memcpy(to, from, bytes);
  }
};

}  // namespace

c10::Allocator* allocator() {
  static auto* made = new DeviceAllocator;
  return made;
}

c10::Allocator* pinned_allocator() {
  static auto* made = new PinnedAllocator;
  return made;
}

bool is_pinned(const void* at) {
  auto& p = pinned();
  const std::lock_guard lock(p.mutex);
  auto found = p.ranges.upper_bound(static_cast<const char*>(at));
  if (found == p.ranges.begin()) return false;
  --found;
  return at < found->first + found->second;
}

int device_at(const void* at) {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  const Block* block = a.at(at);
  return block ? block->device : -1;
}

std::size_t allocated(int device) {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  return a.taken[device];
}

const void* block_at(const void* at) {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  const Block* block = a.at(at);
  return block ? block->begin : nullptr;
}

Opened::Opened(const void* at) {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  Block* block = a.at(at);
  if (!block) return;
  block_ = block;
  if (!block->opened++) a.protect(*block);
}

Opened::~Opened() {
  if (!block_) return;
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  auto* block = static_cast<Block*>(block_);
  if (!--block->opened) a.protect(*block);
}

void open_all() {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  if (!a.all_opened++)
    for (auto& [_, block] : a.blocks) a.protect(*block);
}

void close_all() {
  auto& a = arena();
  const std::lock_guard lock(a.mutex);
  if (!--a.all_opened)
    for (auto& [_, block] : a.blocks) a.protect(*block);
}

}  // namespace standin

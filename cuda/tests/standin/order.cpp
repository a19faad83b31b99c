#include "order.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <vector>

#include "device.hpp"
#include "memory.hpp"

namespace standin {
namespace {

struct Done {
  const char* begin;
  const char* end;
  StreamKey stream;
  Access access;
  std::int64_t number;
};

struct Accesses {
  std::vector<Done> done;
  std::set<StreamKey> kept_for;
};

struct Order {
  std::mutex mutex;
  std::map<StreamKey, Clock> clocks;
  Clock host;
  std::map<const void*, Accesses> blocks;
};

Order& order() {
  static auto* made = new Order;
  return *made;
}

void merge(Clock& into, const Clock& from) {
  for (const auto& [stream, number] : from) into[stream] = std::max(into[stream], number);
}

Clock& clock_of(Order& o, const StreamKey& stream) {
  Clock& clock = o.clocks[stream];
  merge(clock, o.host);
  return clock;
}

}  // namespace

Clock so_far(const c10::Stream& stream) {
  auto& o = order();
  const std::lock_guard lock(o.mutex);
  return clock_of(o, key(stream));
}

void after(const c10::Stream& stream, const Clock& clock) {
  auto& o = order();
  const std::lock_guard lock(o.mutex);
  merge(clock_of(o, key(stream)), clock);
}

void waited(const Clock& clock) {
  auto& o = order();
  const std::lock_guard lock(o.mutex);
  merge(o.host, clock);
}

void waited_for_all(int device) {
  auto& o = order();
  const std::lock_guard lock(o.mutex);
  for (const auto& [stream, clock] : o.clocks)
    if (stream.first == device) merge(o.host, clock);
}

void touch(const void* at, std::size_t bytes, const c10::Stream& stream, Access access) {
  const void* block = bytes ? block_at(at) : nullptr;
  if (!block || captured(stream)) return;
  const auto* begin = static_cast<const char*>(at);
  const auto* end = begin + bytes;
  auto& o = order();
  const std::lock_guard lock(o.mutex);
  Clock& clock = clock_of(o, key(stream));
  auto& done = o.blocks[block].done;
  for (const Done& each : done) {
    if (each.end <= begin || end <= each.begin) continue;
    if (access == each.access && access != Access::write) continue;
    TORCH_CHECK(each.number <= clock[each.stream], "stand-in: streams ", each.stream.second,
                " and ", stream.id(), " may work on the same memory at the same time");
  }
  // What is overwritten, and what this stream did alike before, asks for no more than this does.
  std::erase_if(done, [&](const Done& each) {
    const bool within = begin <= each.begin && each.end <= end;
    return within &&
           (access == Access::write || (each.access == access && each.stream == key(stream)));
  });
  done.push_back({begin, end, key(stream), access, ++clock[key(stream)]});
}

void keep_for(const void* at, const c10::Stream& stream) {
  auto& o = order();
  const std::lock_guard lock(o.mutex);
  o.blocks[block_at(at)].kept_for.insert(key(stream));
}

void freed(const void* block) {
  auto& o = order();
  const std::lock_guard lock(o.mutex);
  auto& accesses = o.blocks[block];
  std::erase_if(accesses.done,
                [&](const Done& each) { return accesses.kept_for.contains(each.stream); });
  accesses.kept_for.clear();
}

}  // namespace standin

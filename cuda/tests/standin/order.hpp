// What comes before what on the devices' streams, and accesses to memory that nothing orders.
#pragma once

#include <c10/core/Stream.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>

namespace standin {

using StreamKey = std::pair<int, c10::StreamId>;

inline StreamKey key(const c10::Stream& stream) { return {stream.device_index(), stream.id()}; }

// Up to which of each stream's work.
using Clock = std::map<StreamKey, std::int64_t>;

Clock so_far(const c10::Stream& stream);
// What the stream does from now on comes after that.
void after(const c10::Stream& stream, const Clock& clock);
// So does what any stream is given from now on: the host has waited.
void waited(const Clock& clock);
void waited_for_all(int device);

// `add` is by atomic operations, whose order among themselves does not matter.
enum class Access { read, write, add };

// That work of a stream has to do with so many bytes of a device's memory. Throws where other
// streams' work on some of them may be at the same time. Nothing is done while a graph is captured.
void touch(const void* at, std::size_t bytes, const c10::Stream& stream, Access access);
// A block that is freed is given again once these streams are done with it.
void keep_for(const void* at, const c10::Stream& stream);
void freed(const void* block);

}  // namespace standin

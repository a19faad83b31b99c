#include "tiles.hpp"

#include <cstring>

namespace repro_audit {
namespace {

struct Pair {
  u64 word[2];
};

template <class T>
void copy(const u8* source, i64 row_stride, i64 column_stride, u64 height, u64 width, u8* target,
          u64 pitch) {
  const i64 row_bytes = row_stride * static_cast<i64>(sizeof(T));
  const i64 column_bytes = column_stride * static_cast<i64>(sizeof(T));
  if (column_stride == 1) {
    // The hardware does not foresee the jump from row to row.
    constexpr i64 kAhead = 16;
    for (u64 r = 0; r < height; ++r) {
      const u8* next = source + (static_cast<i64>(r) + kAhead) * row_bytes;
      for (u64 at = 0; at < width * sizeof(T); at += 64) __builtin_prefetch(next + at);
      std::memcpy(target + r * pitch, source + static_cast<i64>(r) * row_bytes, width * sizeof(T));
    }
    return;
  }
  // Eight rows at a time: their lines of the source stay in L1 while the columns go by, and eight
  // write streams are what store buffers bear.
  for (u64 top = 0; top < height; top += 8) {
    const u64 rows = std::min<u64>(8, height - top);
    const u8* from = source + static_cast<i64>(top) * row_bytes;
    u8* to = target + top * pitch;
    for (u64 c = 0; c < width; ++c) {
      for (u64 r = 0; r < rows; ++r) {
        std::memcpy(to + r * pitch + c * sizeof(T), from + static_cast<i64>(r) * row_bytes,
                    sizeof(T));
      }
      from += column_bytes;
    }
  }
}

}  // namespace

void copy_tile(const u8* source, i64 row_stride, i64 column_stride, u64 height, u64 width,
               u64 itemsize, u8* target, u64 pitch) {
  switch (itemsize) {
    case 1: return copy<u8>(source, row_stride, column_stride, height, width, target, pitch);
    case 2: return copy<u16>(source, row_stride, column_stride, height, width, target, pitch);
    case 4: return copy<u32>(source, row_stride, column_stride, height, width, target, pitch);
    case 8: return copy<u64>(source, row_stride, column_stride, height, width, target, pitch);
    default: return copy<Pair>(source, row_stride, column_stride, height, width, target, pitch);
  }
}

}  // namespace repro_audit

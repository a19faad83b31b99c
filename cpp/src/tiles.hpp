// Tiles: small contiguous copies of strided elements, in the order of the stream.
#pragma once

#include <algorithm>

#include "repro_audit/config.hpp"

namespace repro_audit {

// How many rows and columns (along the last dimension) of a strided tensor make one tile.
struct Tiling {
  u64 rows;
  u64 columns;

  static constexpr u64 kLine = 64;
  static constexpr u64 kTileBytes = u64{16} << 10;
  static constexpr u64 kTurnedBytes = u64{32} << 10;

  // Where the rows are neighbours in memory, four cache lines of them and the columns that fill a
  // tile; where the columns are, whole rows while half of L1 holds them.
  static Tiling of(u64 rows, u64 columns, i64 row_stride, i64 column_stride, u64 itemsize) {
    const bool turned = row_stride == 1 && column_stride != 1;
    const u64 capacity = (turned ? kTurnedBytes : kTileBytes) / itemsize;
    const u64 width = std::min(columns, turned ? kTurnedBytes / (4 * kLine) : capacity);
    return {std::clamp<u64>(capacity / width, 1, rows), width};
  }

  // Bytes from one row of a tile to the next. A line more than the row: rows a power of two apart
  // would share a few sets of L1.
  u64 pitch(u64 itemsize) const { return columns * itemsize + kLine; }
};

// Copies element (r, c) of `height` x `width` from source + (r * row_stride + c * column_stride)
// elements to target + r * pitch + c * itemsize bytes.
void copy_tile(const u8* source, i64 row_stride, i64 column_stride, u64 height, u64 width,
               u64 itemsize, u8* target, u64 pitch);

}  // namespace repro_audit

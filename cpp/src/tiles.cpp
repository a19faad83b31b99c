#include "tiles.hpp"

#include <cstring>

namespace repro_audit {
namespace {

struct Pair {
  u64 word[2];
};

// Sixteen bytes of elements, in the compiler's own vectors: SSE2 and NEON are there everywhere.
template <class T>
struct Vector {
  static constexpr u64 kCount = 16 / sizeof(T);
  typedef T Type __attribute__((vector_size(16)));
};

using V1 = Vector<u8>::Type;
using V2 = Vector<u16>::Type;
using V4 = Vector<u32>::Type;
using V8 = Vector<u64>::Type;

// The lower, or upper, halves of both, element by element in turn.
V1 zip_low(V1 a, V1 b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
V1 zip_high(V1 a, V1 b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}
V2 zip_low(V2 a, V2 b) { return __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11); }
V2 zip_high(V2 a, V2 b) { return __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15); }
V4 zip_low(V4 a, V4 b) { return __builtin_shufflevector(a, b, 0, 4, 1, 5); }
V4 zip_high(V4 a, V4 b) { return __builtin_shufflevector(a, b, 2, 6, 3, 7); }
V8 zip_low(V8 a, V8 b) { return __builtin_shufflevector(a, b, 0, 2); }
V8 zip_high(V8 a, V8 b) { return __builtin_shufflevector(a, b, 1, 3); }

// Turns a square of vectors: log2(n) perfect shuffles of its n rows transpose it.
template <class T>
void transpose_square(const u8* source, i64 column_bytes, u8* target, u64 pitch) {
  constexpr u64 n = Vector<T>::kCount;
  typename Vector<T>::Type rows[n];
  for (u64 i = 0; i < n; ++i) {
    std::memcpy(&rows[i], source + static_cast<i64>(i) * column_bytes, 16);
  }
  for (u64 step = 1; step < n; step *= 2) {
    typename Vector<T>::Type next[n];
    for (u64 i = 0; i < n / 2; ++i) {
      next[2 * i] = zip_low(rows[i], rows[i + n / 2]);
      next[2 * i + 1] = zip_high(rows[i], rows[i + n / 2]);
    }
    std::memcpy(rows, next, sizeof rows);
  }
  for (u64 i = 0; i < n; ++i) std::memcpy(target + i * pitch, &rows[i], 16);
}

// Rows that are neighbours in memory, columns that are not: as many whole squares as there are.
// Sets what it copied; the caller copies the rest.
template <class T>
void transpose(const u8* source, i64 column_bytes, u64 height, u64 width, u8* target, u64 pitch,
               u64& rows, u64& columns) {
  constexpr u64 n = Vector<T>::kCount;
  // The hardware does not foresee the jump from column to column. Into L2: columns a power of two
  // apart share a few sets of L1, which so many lines would not fit.
  constexpr u64 kAhead = 32;
  rows = height / n * n;
  columns = width / n * n;
  for (u64 c = 0; c < columns; c += n) {
    const u8* from = source + static_cast<i64>(c) * column_bytes;
    for (u64 i = 0; i < n; ++i) {
      const u8* next = from + static_cast<i64>(i + kAhead) * column_bytes;
      for (u64 at = 0; at < height * sizeof(T); at += 64) __builtin_prefetch(next + at, 0, 2);
    }
    for (u64 r = 0; r < rows; r += n) {
      transpose_square<T>(from + r * sizeof(T), column_bytes, target + r * pitch + c * sizeof(T),
                          pitch);
    }
  }
}

template <class T>
void copy_elements(const u8* source, i64 row_bytes, i64 column_bytes, u64 height, u64 width,
                   u8* target, u64 pitch) {
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
  u64 rows = 0;
  u64 columns = 0;
  if constexpr (sizeof(T) < 16) {
    if (row_stride == 1) {
      transpose<T>(source, column_bytes, height, width, target, pitch, rows, columns);
    }
  }
  if (rows != 0 && columns != width) {
    copy_elements<T>(source + static_cast<i64>(columns) * column_bytes, row_bytes, column_bytes,
                     rows, width - columns, target + columns * sizeof(T), pitch);
  }
  if (columns == 0) rows = 0;
  copy_elements<T>(source + static_cast<i64>(rows) * row_bytes, row_bytes, column_bytes,
                   height - rows, width, target + rows * pitch, pitch);
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

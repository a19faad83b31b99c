// What the tests of the kernels read.
#pragma once

#include <vector>

#include "../../cpp/src/strided.hpp"
#include "repro_audit/digest.hpp"

namespace repro_audit {

inline std::vector<u8> noise(u64 nbytes) {
  std::vector<u8> bytes(nbytes);
  for (u64 i = 0; i < nbytes; ++i) bytes[i] = static_cast<u8>(mix(i) >> 56);
  return bytes;
}

inline bool equal(Lanes a, Lanes b) { return a.l0 == b.l0 && a.l1 == b.l1; }

// At p ... p + 10,000 items.
inline std::vector<Strided> views(const u8* p, u64 item) {
  std::vector<Strided> all = {
      {p, {40, 24}, {1, 40}, item},          // transposed
      {p, {7, 33, 5}, {165, 5, 1}, item},    // contiguous
      {p, {17, 12}, {64, 1}, item},          // runs
      {p, {9, 64, 8}, {1024, 16, 1}, item},  // runs of two dimensions
      {p, {6, 1, 50}, {0, 3, 1}, item},      // expanded
      {p, {31}, {3}, item},                  // every third
      {p + 99 * item, {100}, {-1}, item},    // backwards
      {p + 500 * item, {5, 10, 3}, {-100, 7, 2}, item},
      {p, {2, 2, 2, 2, 2, 2, 3}, {1, 100, 7, 300, 20, 41, 3}, item},
      {p, {1}, {1}, item},
      {p, {}, {}, item},
  };
  all.push_back({p, std::vector<u64>(12, 2), {}, item});
  for (i64 d = 0; d < 12; ++d) all.back().strides.push_back(i64{1} << ((d * 5) % 12));
  return all;
}

}  // namespace repro_audit

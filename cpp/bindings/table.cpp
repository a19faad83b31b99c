#include "table.hpp"

#include <algorithm>
#include <cstring>

#include "../src/dispatch.hpp"
#include "../src/parallel.hpp"
#include "../src/range.hpp"
#include "arguments.hpp"

namespace repro_audit::bindings {
namespace {

// Above this a stream is worth several threads of its own.
constexpr u64 kLarge = u64{8} << 20;

void digest_row(const Row& row, unsigned threads, u8* to) {
  const u8* p = reinterpret_cast<const u8*>(row.address);
  const Lanes lanes = parallel_lanes(active(), default_keys(), p, row.nbytes, 0, threads);
  const auto printed = in_print_order(finalize(lanes, row.nbytes, row.tag));
  std::memcpy(to, printed.data(), printed.size());
}

}  // namespace

std::vector<u8> digest_rows(const std::vector<Row>& rows, unsigned threads) {
  std::vector<u64> before(rows.size() + 1, 0);  // bytes of the small streams before each row
  u64 total = 0;
  for (u64 i = 0; i < rows.size(); ++i) {
    pointer(rows[i].address, rows[i].nbytes);
    total += rows[i].nbytes;
    before[i + 1] = before[i] + (rows[i].nbytes < kLarge ? rows[i].nbytes : 0);
  }
  std::vector<u8> digests(16 * rows.size());
  {
    const Release release(total);
    for (u64 i = 0; i < rows.size(); ++i) {
      if (rows[i].nbytes >= kLarge) digest_row(rows[i], threads, &digests[16 * i]);
    }
    const unsigned parts = worth_threads(before.back(), threads);
    run_parallel(parts, [&](unsigned part) {
      const auto bound = [&](u64 at) {
        return static_cast<u64>(
            std::lower_bound(before.begin(), before.end() - 1, before.back() / parts * at) -
            before.begin());
      };
      const u64 to = part + 1 == parts ? rows.size() : bound(part + 1);
      for (u64 i = part == 0 ? 0 : bound(part); i < to; ++i) {
        if (rows[i].nbytes < kLarge) digest_row(rows[i], 1, &digests[16 * i]);
      }
    });
  }
  return digests;
}

}  // namespace repro_audit::bindings

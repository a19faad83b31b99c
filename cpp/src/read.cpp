#include "read.hpp"

#include <algorithm>
#include <vector>

#include "parallel.hpp"

namespace repro_audit {

u64 read_sum(const Kernels& kernels, const u8* p, u64 nbytes, unsigned threads) {
  const unsigned parts = worth_threads(nbytes, threads);
  std::vector<u64> sums(parts);
  const u64 step = (nbytes / parts / kBlockBytes + 1) * kBlockBytes;
  run_parallel(parts, [&](unsigned part) {
    const u64 from = std::min(nbytes, part * step);
    sums[part] = kernels.read_sum(p + from, std::min(nbytes - from, step));
  });
  u64 total = 0;
  for (const u64 sum : sums) total += sum;
  return total;
}

}  // namespace repro_audit

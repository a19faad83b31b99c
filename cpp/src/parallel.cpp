#include "parallel.hpp"

#include <algorithm>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace repro_audit {

unsigned usable_cpus() {
#if defined(__linux__)
  cpu_set_t mask;
  // Fails where the machine has more than 1024 CPUs; the library's count is asked then.
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) {
    return static_cast<unsigned>(std::max(1, CPU_COUNT(&mask)));
  }
#endif
  return std::max(1U, std::thread::hardware_concurrency());
}

unsigned worth_threads(u64 nbytes, unsigned threads) {
  constexpr u64 kLeast = u64{8} << 20;
  constexpr u64 kLeastPart = u64{2} << 20;
  if (threads == 1 || nbytes < kLeast) return 1;
  const u64 wanted = threads == 0 ? usable_cpus() : threads;
  return static_cast<unsigned>(std::clamp<u64>(wanted, 1, nbytes / kLeastPart));
}

void run_parallel(unsigned parts, const std::function<void(unsigned)>& work) {
  std::vector<std::thread> threads;
  threads.reserve(parts);
  unsigned started = 1;
  try {
    for (; started < parts; ++started) threads.emplace_back(work, started);
  } catch (const std::system_error&) {
    // No more threads to be had: this one does the rest, below.
  }
  work(0);
  for (unsigned part = started; part < parts; ++part) work(part);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace repro_audit

// Threads for one call.
#pragma once

#include <functional>

#include "repro_audit/config.hpp"

namespace repro_audit {

// CPUs that this process may run on (its affinity mask, not the machine's count).
unsigned usable_cpus();

// How many parts `nbytes` bytes are worth: 1 below 8 MiB, else `threads` (0: usable_cpus()).
unsigned worth_threads(u64 nbytes, unsigned threads);

// Calls work(0) ... work(parts - 1), the first on this thread, and returns when all are done.
// `work` must not throw.
//
// Threads are made for the call and joined: no pool outlives it, so a fork (a DataLoader's workers,
// multiprocessing) never inherits a lock or a queue whose threads do not exist in the child. Making
// one costs some 20 microseconds, against half a millisecond that 8 MiB take to read.
void run_parallel(unsigned parts, const std::function<void(unsigned)>& work);

}  // namespace repro_audit

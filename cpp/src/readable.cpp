#include "readable.hpp"

#if defined(__linux__)
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#endif

namespace repro_audit {

bool readable(const u8* p, u64 nbytes) {
  if (nbytes == 0) return true;
#if defined(__linux__)
  // The kernel copies a byte of each end, and says EFAULT where reading it here would be a signal.
  u8 ends[2];
  iovec local[2] = {{&ends[0], 1}, {&ends[1], 1}};
  iovec remote[2] = {{const_cast<u8*>(p), 1}, {const_cast<u8*>(p + nbytes - 1), 1}};
  const ssize_t copied = process_vm_readv(getpid(), local, 2, remote, 2, 0);
  return copied == 2 || (copied < 0 && errno != EFAULT);
#else
  return p != nullptr;
#endif
}

}  // namespace repro_audit

#include "dispatch.hpp"

#include <atomic>

namespace repro_audit {
namespace {

// Fastest first.
constexpr const Kernels* kTable[] = {
#if defined(REPRO_AUDIT_X86)
    &kAvx512,
    &kAvx2,
#elif defined(REPRO_AUDIT_ARM64)
    &kNeon,
#endif
    &kPortable,
};

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> kernels{available().front()};
  return kernels;
}

}  // namespace

std::vector<const Kernels*> available() {
  std::vector<const Kernels*> rows;
  for (const Kernels* row : kTable) {
    if (row->supported()) rows.push_back(row);
  }
  return rows;
}

const Kernels& active() { return *current().load(std::memory_order_relaxed); }

bool select(std::string_view name) {
  for (const Kernels* row : available()) {
    if (name == row->name) {
      current().store(row, std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

}  // namespace repro_audit

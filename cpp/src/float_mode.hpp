// The float environment that exact answers need, whatever the host program set.
#pragma once

#include "repro_audit/config.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace repro_audit {

// For this thread and as long as it lives: round to nearest, no flushing of denormals
// (`torch.set_flush_denormal(True)` sets FTZ and DAZ), no traps; then what was set before.
class FloatMode {
 public:
  FloatMode(const FloatMode&) = delete;
  FloatMode& operator=(const FloatMode&) = delete;

#if defined(__x86_64__)
  FloatMode() : before_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~FloatMode() { _mm_setcsr(before_); }

 private:
  u32 before_;
#elif defined(__aarch64__)
  FloatMode() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    __asm__ volatile("msr fpcr, %0" ::"r"(u64{0}));
  }
  ~FloatMode() { __asm__ volatile("msr fpcr, %0" ::"r"(before_)); }

 private:
  u64 before_;
#else
  FloatMode() = default;
#endif
};

}  // namespace repro_audit

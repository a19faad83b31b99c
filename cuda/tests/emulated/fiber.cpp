// glibc, where fortified, takes a jump to another stack for an error.
#undef _FORTIFY_SOURCE

#include "fiber.hpp"

#include <pthread.h>

#if defined(REPRO_AUDIT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(REPRO_AUDIT_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace emulated {

Fiber::Fiber() : begun_(true) {
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &stack_, &bytes_);
  pthread_attr_destroy(&attributes);
#if defined(REPRO_AUDIT_TSAN)
  known_ = __tsan_get_current_fiber();
#endif
}

Fiber::Fiber(void (*entry)())
    : own_(new char[kStackBytes]), stack_(own_.get()), bytes_(kStackBytes), begun_(false) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = bytes_;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#if defined(REPRO_AUDIT_TSAN)
  known_ = __tsan_create_fiber(0);
#endif
}

Fiber::~Fiber() {
  if (!own_) return;
#if defined(REPRO_AUDIT_TSAN)
  __tsan_destroy_fiber(known_);
#endif
#if defined(REPRO_AUDIT_ASAN)
  // It may be given up in the middle of its work.
  ASAN_UNPOISON_MEMORY_REGION(stack_, bytes_);
#endif
}

// A context carries the mask of signals, at the cost of a system call; a jump does not. So contexts
// only begin fibers.
void Fiber::change(Fiber& from, Fiber& to) {
  if (_setjmp(from.jump_) != 0) {
#if defined(REPRO_AUDIT_ASAN)
    __sanitizer_finish_switch_fiber(from.frames_, nullptr, nullptr);
#endif
    return;
  }
#if defined(REPRO_AUDIT_ASAN)
  __sanitizer_start_switch_fiber(&from.frames_, to.stack_, to.bytes_);
#endif
#if defined(REPRO_AUDIT_TSAN)
  __tsan_switch_to_fiber(to.known_, __tsan_switch_to_fiber_no_sync);
#endif
  if (to.begun_) _longjmp(to.jump_, 1);
  to.begun_ = true;
  setcontext(&to.context_);
}

void Fiber::begin() {
#if defined(REPRO_AUDIT_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void release([[maybe_unused]] char& at) {
#if defined(REPRO_AUDIT_TSAN)
  __tsan_release(&at);
#endif
}

void acquire([[maybe_unused]] char& at) {
#if defined(REPRO_AUDIT_TSAN)
  __tsan_acquire(&at);
#endif
}

}  // namespace emulated

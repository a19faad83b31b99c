// Threads of control that take turns on one thread of the host.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>
#include <memory>

namespace emulated {

class Fiber {
 public:
  // The calling thread, which others leave and come back to.
  Fiber();

  // Runs `entry`, which does not return, when it is first changed to.
  explicit Fiber(void (*entry)());

  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // Leaves `from`, which is running, for `to`.
  static void change(Fiber& from, Fiber& to);

  // What `entry` calls first.
  void begin();
  bool begun() const { return begun_; }

 private:
  static constexpr std::size_t kStackBytes = std::size_t{256} << 10;

  std::unique_ptr<char[]> own_;
  void* stack_ = nullptr;
  std::size_t bytes_ = 0;
  bool begun_;
  ucontext_t context_{};
  jmp_buf jump_{};
  [[maybe_unused]] void* frames_ = nullptr;  // what AddressSanitizer keeps of one that was left
  [[maybe_unused]] void* known_ = nullptr;   // what ThreadSanitizer knows it by
};

// What was done before `release` is ordered before what follows `acquire`; only ThreadSanitizer
// wants to know.
void release(char& at);
void acquire(char& at);

}  // namespace emulated

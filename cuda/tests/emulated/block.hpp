// One block's threads, as fibers of a thread of the host.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fiber.hpp"
#include "machine.hpp"

namespace emulated {

// Runs blocks one after another, on the host's thread that made it.
class Multiprocessor {
 public:
  Multiprocessor();

  // Runs a block whose threads each call `thread`; what they violate, or nothing.
  std::string run(const std::function<void()>& thread, const ThisThread& first,
                  const Schedule& schedule);

  // The calling thread's.
  static Multiprocessor& here();

  const ThisThread& this_thread() const { return threads_[running_].self; }
  void synchronize_block(Place place);
  unsigned long long exchange(const Exchange& exchange, unsigned long long value);

 private:
  enum class State { ready, exchanging, synchronizing, exited };

  struct Thread {
    std::unique_ptr<Fiber> fiber;
    ThisThread self;
    State state;
    Exchange at;  // of a barrier: its place alone
    unsigned long long value;
  };

  // In what fibers call nothing is allocated: ThreadSanitizer would see them free each other's
  // memory.
  static void live();
  void arrange(const Schedule& schedule, unsigned block);
  void pass_on();
  void meet_warp(unsigned warp);
  void meet_block();
  void wake(std::span<const unsigned> threads);
  void give_up(const char* why);
  std::string waiting() const;

  std::vector<Thread> threads_;
  std::vector<unsigned> order_;    // of the block's threads
  std::vector<unsigned> lanes_;    // the same, warp by warp
  std::vector<unsigned> arrived_;  // lanes of each warp that wait for the others
  unsigned synchronizing_ = 0;
  unsigned exited_ = 0;
  std::vector<unsigned> ready_;  // a ring
  std::size_t next_ = 0;
  std::size_t left_ = 0;
  unsigned running_ = 0;
  bool eager_ = false;
  const std::function<void()>* work_ = nullptr;
  const char* violation_ = nullptr;
  Fiber host_;
  // For `release` and `acquire`. Barriers take turns: who runs ahead to the next one must not
  // seem to have waited for those who have yet to leave this one.
  char begin_ = 0;
  char end_ = 0;
  char barriers_[2] = {};
  unsigned turn_ = 0;
};

}  // namespace emulated

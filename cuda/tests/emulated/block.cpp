#include "block.hpp"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <utility>

namespace emulated {
namespace {

constexpr unsigned kWarp = 32;

// Not thread_local: those variables are the kernels' shared memory.
pthread_key_t key() {
  static const pthread_key_t made = [] {
    pthread_key_t key{};
    if (pthread_key_create(&key, nullptr) != 0) std::abort();
    return key;
  }();
  return made;
}

std::string words(Place place) {
  const std::string file = place.file;
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(place.line);
}

}  // namespace

Multiprocessor::Multiprocessor() { pthread_setspecific(key(), this); }

Multiprocessor& Multiprocessor::here() {
  return *static_cast<Multiprocessor*>(pthread_getspecific(key()));
}

std::string Multiprocessor::run(const std::function<void()>& thread, const ThisThread& first,
                                const Schedule& schedule) {
  const unsigned count = first.threads;
  while (threads_.size() < count) {
    threads_.push_back({std::make_unique<Fiber>(live), {}, State::exited, {}, 0});
  }
  for (unsigned i = 0; i < count; ++i) {
    threads_[i].self = first;
    threads_[i].self.index = i;
    threads_[i].state = State::ready;
  }
  order_.resize(count);
  arrange(schedule, first.block);
  arrived_.assign(count / kWarp, 0);
  synchronizing_ = 0;
  exited_ = 0;
  eager_ = schedule.eager;
  work_ = &thread;
  ready_ = order_;
  running_ = ready_.front();
  next_ = 1;
  left_ = count - 1;
  release(begin_);
  Fiber::change(host_, *threads_[running_].fiber);
  acquire(end_);
  if (violation_ == nullptr) return {};
  // Fibers in the middle of their work end there.
  for (unsigned i = 0; i < threads_.size(); ++i) {
    if (i != running_ && threads_[i].fiber->begun()) Fiber::change(host_, *threads_[i].fiber);
  }
  acquire(end_);
  const std::string words = std::exchange(violation_, nullptr) + (": " + waiting());
  threads_.clear();
  return words;
}

void Multiprocessor::arrange(const Schedule& schedule, unsigned block) {
  std::iota(order_.begin(), order_.end(), 0U);
  if (schedule.order == Schedule::Order::backward) std::reverse(order_.begin(), order_.end());
  if (schedule.order == Schedule::Order::shuffled) {
    std::shuffle(order_.begin(), order_.end(), std::minstd_rand(schedule.seed + block));
  }
  lanes_ = order_;
  std::stable_sort(lanes_.begin(), lanes_.end(),
                   [](unsigned a, unsigned b) { return a / kWarp < b / kWarp; });
}

void Multiprocessor::live() {
  Multiprocessor& all = here();
  const unsigned self = all.running_;
  all.threads_[self].fiber->begin();
  for (;;) {
    acquire(all.begin_);
    (*all.work_)();
    release(all.end_);
    all.threads_[self].state = State::exited;
    ++all.exited_;
    all.meet_block();
    all.pass_on();
  }
}

void Multiprocessor::synchronize_block(Place place) {
  Thread& self = threads_[running_];
  char& barrier = barriers_[turn_];
  release(barrier);
  self.state = State::synchronizing;
  self.at.place = place;
  ++synchronizing_;
  meet_block();
  pass_on();
  acquire(barrier);
}

unsigned long long Multiprocessor::exchange(const Exchange& exchange, unsigned long long value) {
  Thread& self = threads_[running_];
  const unsigned warp = running_ / kWarp;
  self.state = State::exchanging;
  self.at = exchange;
  self.value = value;
  if (++arrived_[warp] == kWarp) meet_warp(warp);
  pass_on();
  return self.value;
}

// Leaves the running thread for one that can go on: itself, perhaps.
void Multiprocessor::pass_on() {
  Fiber& self = *threads_[running_].fiber;
  if (left_ == 0) {
    if (exited_ < order_.size()) return give_up("threads wait for ever");
    return Fiber::change(self, host_);
  }
  running_ = ready_[next_];
  next_ = (next_ + 1) % ready_.size();
  --left_;
  Fiber& next = *threads_[running_].fiber;
  if (&next == &self) return;
  Fiber::change(self, next);
  if (violation_ == nullptr) return;
  release(end_);
  Fiber::change(self, host_);
}

// All lanes of a warp are at an exchange.
void Multiprocessor::meet_warp(unsigned warp) {
  const std::span lanes = std::span(threads_).subspan(warp * kWarp, kWarp);
  const Exchange& first = lanes[0].at;
  std::array<unsigned long long, kWarp> found{};
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Exchange& at = lanes[lane].at;
    const bool relative = at.shuffle == Shuffle::exclusive_or;
    if (!(at.place == first.place)) return give_up("a warp's lanes are apart");
    if (at.mask != ~0U) return give_up("a mask without the whole warp");
    if (relative && at.operand != first.operand) return give_up("lanes ask for different steps");
    const unsigned operand = static_cast<unsigned>(at.operand);
    if (operand >= kWarp) return give_up("no such lane");
    found[lane] = lanes[relative ? lane ^ operand : operand].value;
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) lanes[lane].value = found[lane];
  arrived_[warp] = 0;
  wake(std::span(lanes_).subspan(warp * kWarp, kWarp));
}

// Lets threads leave a barrier once all that have not exited are there.
void Multiprocessor::meet_block() {
  if (synchronizing_ == 0 || synchronizing_ + exited_ < order_.size()) return;
  const Thread* first = nullptr;
  for (const unsigned thread : order_) {
    const Thread& one = threads_[thread];
    if (one.state == State::exited) continue;
    if (first == nullptr) first = &one;
    if (!(one.at.place == first->at.place)) return give_up("threads are at different barriers");
  }
  synchronizing_ = 0;
  turn_ ^= 1U;
  wake(order_);
}

// All of these can go on, but for those that have exited.
void Multiprocessor::wake(std::span<const unsigned> threads) {
  const std::size_t room = ready_.size();
  for (std::size_t i = 0; i < threads.size(); ++i) {
    // Those at the front of the ring come to stand there from the last to the first.
    const unsigned thread = threads[eager_ ? threads.size() - 1 - i : i];
    if (threads_[thread].state == State::exited) continue;
    threads_[thread].state = State::ready;
    if (eager_) next_ = (next_ + room - 1) % room;
    ready_[eager_ ? next_ : (next_ + left_) % room] = thread;
    ++left_;
  }
}

void Multiprocessor::give_up(const char* why) {
  violation_ = why;
  release(end_);
  Fiber::change(*threads_[running_].fiber, host_);
}

std::string Multiprocessor::waiting() const {
  std::map<std::string, unsigned> counts;
  for (const unsigned thread : order_) {
    const Thread& one = threads_[thread];
    switch (one.state) {
      case State::ready: ++counts["ready"]; break;
      case State::exited: ++counts["exited"]; break;
      case State::exchanging: ++counts["at the shuffle of " + words(one.at.place)]; break;
      case State::synchronizing: ++counts["at the barrier of " + words(one.at.place)]; break;
    }
  }
  std::string all;
  for (const auto& [where, count] : counts) {
    all += (all.empty() ? "" : ", ") + std::to_string(count) + " " + where;
  }
  return all;
}

}  // namespace emulated

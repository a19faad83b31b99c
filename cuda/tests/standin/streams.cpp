#include "streams.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <mutex>

namespace standin {

thread_local int t_capture_mode = 0;

namespace {

constexpr int kRelaxed = 2;

struct Copy {
  StreamKey stream;
  Moment there;
  std::function<void()> write;
};

struct Queues {
  std::mutex mutex;
  std::map<StreamKey, Moment> done;
  std::vector<Copy> copies;
  std::map<StreamKey, Graph*> captured;
  Moment now = 0;
  int sync_debug = 0;
};

Queues& queues() {
  static auto* made = new Queues;
  return *made;
}

// The host sees what streams have done up to a moment that has come.
void arrive(Moment upto) {
  auto& q = queues();
  std::vector<Copy> there;
  {
    const std::lock_guard lock(q.mutex);
    const auto first = std::stable_partition(q.copies.begin(), q.copies.end(),
                                             [&](const Copy& each) { return each.there > upto; });
    std::move(first, q.copies.end(), std::back_inserter(there));
    q.copies.erase(first, q.copies.end());
  }
  for (auto& each : there) each.write();
}

Moment done_at(const c10::Stream& stream) {
  auto& q = queues();
  const std::lock_guard lock(q.mutex);
  return q.done[key(stream)];
}

void wait_until(Moment moment) {
  {
    auto& q = queues();
    const std::lock_guard lock(q.mutex);
    q.now = std::max(q.now, moment);
  }
  arrive(moment);
}

bool come(Moment moment) {
  {
    auto& q = queues();
    const std::lock_guard lock(q.mutex);
    if (moment > q.now++) return false;
  }
  arrive(moment);
  return true;
}

Graph* graph_of(const c10::Stream& stream) {
  auto& q = queues();
  const std::lock_guard lock(q.mutex);
  const auto found = q.captured.find(key(stream));
  return found == q.captured.end() ? nullptr : found->second;
}

}  // namespace

void sleep(const c10::Stream& stream, Moment questions) {
  auto& q = queues();
  const std::lock_guard lock(q.mutex);
  auto& done = q.done[key(stream)];
  done = std::max(done, q.now) + questions;
}

void later(const c10::Stream& stream, std::function<void()> write) {
  auto& q = queues();
  const std::lock_guard lock(q.mutex);
  auto& done = q.done[key(stream)];
  done = std::max(done, q.now) + 1;
  q.copies.push_back({key(stream), done, std::move(write)});
}

void record_event(Event& event, const c10::Stream& stream) {
  event = {done_at(stream), key(stream), so_far(stream), graph_of(stream)};
}

void wait_event(const Event& event, const c10::Stream& stream) {
  after(stream, event.clock);
  auto& q = queues();
  const std::lock_guard lock(q.mutex);
  auto& done = q.done[key(stream)];
  done = std::max(done, event.done);
  // A stream that waits for a captured one is captured too.
  if (event.graph && q.captured.contains(event.stream)) q.captured[key(stream)] = event.graph;
}

bool reached(const Event& event) {
  forbidden_in_capture();
  if (!come(event.done)) return false;
  waited(event.clock);
  return true;
}

bool reached(const c10::Stream& stream) {
  forbidden_in_capture();
  if (!come(done_at(stream))) return false;
  waited(so_far(stream));
  return true;
}

void wait_for(const Event& event) {
  forbidden_in_capture();
  wait_until(event.done);
  waited(event.clock);
}

void wait_for(const c10::Stream& stream) {
  forbidden_in_capture();
  wait_until(done_at(stream));
  waited(so_far(stream));
}

void wait_for_device(int device) {
  forbidden_in_capture();
  Moment last = 0;
  {
    auto& q = queues();
    const std::lock_guard lock(q.mutex);
    for (const auto& [stream, done] : q.done)
      if (stream.first == device) last = std::max(last, done);
  }
  wait_until(last);
  waited_for_all(device);
}

void set_sync_debug_mode(int mode) { queues().sync_debug = mode; }
int sync_debug_mode() { return queues().sync_debug; }

void synchronizing(const c10::Stream& stream) {
  TORCH_CHECK(queues().sync_debug != 2, "called a synchronizing CUDA operation");
  wait_for(stream);
}

bool captured(const c10::Stream& stream) { return graph_of(stream) != nullptr; }

void record(const c10::Stream& stream, std::function<void()> work) {
  if (Graph* graph = graph_of(stream)) graph->work.push_back(std::move(work));
}

void forbidden_in_capture() {
  if (t_capture_mode == kRelaxed) return;
  auto& q = queues();
  const std::lock_guard lock(q.mutex);
  if (q.captured.empty()) return;
  for (auto& [_, graph] : q.captured) graph->invalid = true;
  TORCH_CHECK(false, "CUDA error: operation not permitted when stream is capturing");
}

void begin_capture(Graph& graph, const c10::Stream& stream) {
  TORCH_CHECK(stream.id() != 0, "CUDA graphs must be captured on a non-default stream");
  auto& q = queues();
  const std::lock_guard lock(q.mutex);
  graph = {};
  q.captured[key(stream)] = &graph;
}

void end_capture(Graph& graph) {
  auto& q = queues();
  const std::lock_guard lock(q.mutex);
  std::erase_if(q.captured, [&](const auto& each) { return each.second == &graph; });
  TORCH_CHECK(!graph.invalid,
              "CUDA error: operation failed due to a previous error during capture");
}

}  // namespace standin

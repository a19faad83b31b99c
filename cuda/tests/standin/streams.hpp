// What is queued: how far streams have come, copies on their way to the host, graphs.
#pragma once

#include <c10/core/Stream.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "device.hpp"
#include "order.hpp"

namespace standin {

// Time goes on by one with each question whether work is done, and as far as anybody waits.
using Moment = std::int64_t;
// A graph under capture, or captured.
struct Graph {
  std::vector<std::function<void()>> work;
  bool invalid = false;
};

struct Event {
  Moment done = 0;
  StreamKey stream{};
  Clock clock;
  Graph* graph = nullptr;  // into which its stream was captured
};

void record_event(Event& event, const c10::Stream& stream);
void wait_event(const Event& event, const c10::Stream& stream);
bool reached(const Event& event);
bool reached(const c10::Stream& stream);
void wait_for(const Event& event);

// Which calls a capture forbids all threads, but those that said they know (CUDA's "relaxed").
void forbidden_in_capture();
extern thread_local int t_capture_mode;

void begin_capture(Graph& graph, const c10::Stream& stream);
void end_capture(Graph& graph);

}  // namespace standin

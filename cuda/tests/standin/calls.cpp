// What Python calls, by ctypes with the interpreter's lock held.
#include <ATen/core/Generator.h>
#include <c10/core/Allocator.h>
#include <dlfcn.h>

#include <functional>
#include <string>
#include <utility>

#include "device.hpp"
#include "memory.hpp"
#include "plain.hpp"
#include "streams.hpp"

namespace {

// Before anything asks for one.
const bool registered = [] {
  c10::SetAllocator(standin::kType, standin::allocator());
  return true;
}();

const char* told(const std::function<void()>& work) {
  static thread_local std::string said;
  try {
    work();
    return nullptr;
  } catch (const c10::Error& error) {
    said = error.what_without_backtrace();
  } catch (const std::exception& error) {
    said = error.what();
  }
  return said.c_str();
}

}  // namespace

extern "C" {

// The part of NVIDIA's driver that is asked for by name, of one that is new enough.
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}

int cuThreadExchangeStreamCaptureMode(int* mode) {
  std::swap(*mode, standin::t_capture_mode);
  return 0;
}

int standin_devices() { return standin::kCount; }

// A torch.Generator; torch's own library makes it, which is loaded by now.
void* standin_generator(int device) {
  using Wrap = void* (*)(const at::Generator&);
  void* library = dlopen("libtorch_python.so", RTLD_LAZY | RTLD_NOLOAD);
  const auto wrap = reinterpret_cast<Wrap>(
      library ? dlsym(library, "_Z33THPGenerator_initDefaultGeneratorRKN2at9GeneratorE") : nullptr);
  return wrap ? wrap(standin::default_generator(device)) : nullptr;
}

int standin_current_device() { return standin::current_device(); }
void standin_set_device(int device) { standin::set_current_device(device); }
long long standin_current_stream(int device) { return standin::current_stream(device).id(); }
void standin_sleep(long long questions) {
  standin::sleep(standin::current_stream(standin::current_device()), questions);
}
void standin_set_sync_debug_mode(int mode) { standin::set_sync_debug_mode(mode); }
int standin_sync_debug_mode() { return standin::sync_debug_mode(); }
unsigned long long standin_allocated(int device) { return standin::allocated(device); }
void standin_open() { standin::open_all(); }
void standin_close() { standin::close_all(); }

// 0 for a read, 1 for a write, 2 for one by atomic operations.
const char* standin_touch(const void* at, unsigned long long bytes, int device, long long stream,
                          int access) {
  return told([&] {
    const c10::Stream on(c10::Stream::UNSAFE,
                         c10::Device(standin::kType, static_cast<c10::DeviceIndex>(device)),
                         stream);
    standin::touch(at, bytes, on, static_cast<standin::Access>(access));
  });
}

int standin_capturing() {
  return standin::captured(standin::current_stream(standin::current_device()));
}
void* standin_graph() { return new standin::Graph; }
// What cannot be raised through C is told: null where nothing was.
const char* standin_begin_capture(standin::Graph* graph) {
  return told(
      [&] { standin::begin_capture(*graph, standin::current_stream(standin::current_device())); });
}
const char* standin_end_capture(standin::Graph* graph) {
  return told([&] { standin::end_capture(*graph); });
}
const char* standin_synchronize(int device) {
  return told([&] { standin::wait_for_device(device); });
}
const char* standin_replay(standin::Graph* graph) {
  return told([&] {
    const standin::Plain plain;
    const auto work = graph->work;
    for (const auto& each : work) each();
  });
}
}

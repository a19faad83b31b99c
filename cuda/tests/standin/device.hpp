// Devices, streams and generators that stand in for CUDA's, Intel's or another maker's.
#pragma once

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>
#include <c10/core/DispatchKey.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>

#include "memory.hpp"

namespace standin {

// `cuda`, `xpu`, `mps` or any other name: that of another maker's devices.
inline const std::string kKind = std::getenv("STANDIN_KIND") ? std::getenv("STANDIN_KIND") : "cuda";
inline const auto kTypeAndKey = [] {
  using Keys = std::pair<c10::DeviceType, c10::DispatchKey>;
  if (kKind == "cuda") return Keys{c10::DeviceType::CUDA, c10::DispatchKey::CUDA};
  if (kKind == "xpu") return Keys{c10::DeviceType::XPU, c10::DispatchKey::XPU};
  if (kKind == "mps") return Keys{c10::DeviceType::MPS, c10::DispatchKey::MPS};
  return Keys{c10::DeviceType::PrivateUse1, c10::DispatchKey::PrivateUse1};
}();
inline const c10::DeviceType kType = kTypeAndKey.first;
inline const c10::DispatchKey kKey = kTypeAndKey.second;
// An Apple machine has one.
inline const int kCount = kKind == "mps" ? 1 : kDevices;

int current_device();
void set_current_device(int device);
c10::Stream current_stream(int device);

// Keeps a stream busy, as a kernel would, until it was asked so often whether it is done, or
// somebody has waited.
void sleep(const c10::Stream& stream, std::int64_t questions);

// What the host sees once the stream has come so far: copies that nobody waits for.
void later(const c10::Stream& stream, std::function<void()> write);
void wait_for(const c10::Stream& stream);
void wait_for_device(int device);

// 0, 1 to warn and 2 to refuse what makes the host wait.
void set_sync_debug_mode(int mode);
int sync_debug_mode();
// Called by what makes the host wait for a stream's work.
void synchronizing(const c10::Stream& stream);

// Work that a graph would do again, where the stream is captured into one.
bool captured(const c10::Stream& stream);
void record(const c10::Stream& stream, std::function<void()> work);

const at::Generator& default_generator(int device);
// The host's generator that draws for a device's.
at::Generator drawing(const at::Generator& of_device);

}  // namespace standin

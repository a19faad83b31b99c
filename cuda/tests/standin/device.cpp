#include "device.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/detail/XPUHooksInterface.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "memory.hpp"
#include "streams.hpp"

namespace standin {
namespace {

thread_local int t_device = 0;
thread_local c10::StreamId t_streams[kDevices] = {};

c10::Device indexed(c10::Device device) {
  return {kType, device.has_index() ? device.index() : static_cast<c10::DeviceIndex>(t_device)};
}

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const auto old = getDevice();
    setDevice(device);
    return old;
  }
  c10::Device getDevice() const override {
    return {kType, static_cast<c10::DeviceIndex>(t_device)};
  }
  void setDevice(c10::Device device) const override { set_current_device(device.index()); }
  void uncheckedSetDevice(c10::Device device) const noexcept override { t_device = device.index(); }
  c10::Stream getStream(c10::Device device) const override {
    return current_stream(indexed(device).index());
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, indexed(device));
  }
  c10::Stream getNewStream(c10::Device device, int) const override {
    // The emulated launches take a stream for the address of its device's number.
    const auto on = indexed(device);
    return c10::Stream(c10::Stream::UNSAFE, on,
                       reinterpret_cast<c10::StreamId>(new int(on.index())));
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override {
    return getNewStream(device, 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const auto old = current_stream(stream.device_index());
    t_streams[stream.device_index()] = stream.id();
    return old;
  }
  void* getStreamNativeHandle(const c10::Stream stream) const override {
    return reinterpret_cast<void*>(stream.id());
  }
  void destroyEvent(void* event, const c10::DeviceIndex) const noexcept override {
    delete static_cast<Event*>(event);
  }
  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex,
              const c10::EventFlag) const override {
    if (!*event) *event = new Event;
    record_event(*static_cast<Event*>(*event), stream);
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event) wait_event(*static_cast<Event*>(event), stream);
  }
  bool queryEvent(void* event) const override {
    return !event || reached(*static_cast<Event*>(event));
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(kCount);
  }
  bool queryStream(const c10::Stream& stream) const override { return reached(stream); }
  void synchronizeStream(const c10::Stream& stream) const override { wait_for(stream); }
  void synchronizeEvent(void* event) const override {
    if (event) wait_for(*static_cast<Event*>(event));
  }
  void synchronizeDevice(const c10::DeviceIndex device) const override { wait_for_device(device); }
  bool isStreamCapturing(const c10::Stream& stream) const override { return captured(stream); }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
  double elapsedTime(void*, void*, const c10::DeviceIndex) const override { return 1.0; }
};

const c10::impl::DeviceGuardImplRegistrar guard(kType, new Guard);

// Draws as the host's generator does, but from one seed other numbers.
struct DeviceGenerator final : c10::GeneratorImpl {
  explicit DeviceGenerator(int device)
      : GeneratorImpl(c10::Device(kType, static_cast<c10::DeviceIndex>(device)),
                      c10::DispatchKeySet(kKey)),
        own(at::detail::createCPUGenerator()) {}

  void set_current_seed(std::uint64_t seed) override { own.set_current_seed(seed ^ kOther); }
  void set_offset(std::uint64_t) override { TORCH_CHECK(false, "no offset"); }
  std::uint64_t get_offset() const override { return 0; }
  std::uint64_t current_seed() const override { return own.current_seed() ^ kOther; }
  std::uint64_t seed() override { return own.seed() ^ kOther; }
  void set_state(const c10::TensorImpl& state) override {
    own.unsafeGetGeneratorImpl()->set_state(state);
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return own.unsafeGetGeneratorImpl()->get_state();
  }
  DeviceGenerator* clone_impl() const override {
    auto* made = new DeviceGenerator(device().index());
    made->own = own.clone();
    return made;
  }
  at::Generator own;

 private:
  static constexpr std::uint64_t kOther = 0x5EED;
};

template <class Base>
struct Hooks : Base {
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return static_cast<c10::DeviceIndex>(kCount); }
  c10::DeviceIndex getCurrentDevice() const override {
    return static_cast<c10::DeviceIndex>(t_device);
  }
  void setCurrentDevice(c10::DeviceIndex device) const override { set_current_device(device); }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    const auto old = getCurrentDevice();
    if (device >= 0) set_current_device(device);
    return old;
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return exchangeDevice(device);
  }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex device) const override {
    return default_generator(device < 0 ? t_device : device);
  }
  at::Generator getNewGenerator(c10::DeviceIndex device) const override {
    return at::make_generator<DeviceGenerator>(device < 0 ? t_device : device);
  }
  at::Device getDeviceFromPtr(void* at) const override {
    return {kType, static_cast<c10::DeviceIndex>(device_at(at))};
  }
  bool isPinnedPtr(const void* at) const override { return is_pinned(at); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return pinned_allocator(); }
};

struct CUDAHooks final : Hooks<at::CUDAHooksInterface> {
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  int getNumGPUs() const override { return kCount; }
  c10::DeviceIndex current_device() const override { return getCurrentDevice(); }
  c10::Allocator* getCUDADeviceAllocator() const override { return allocator(); }
  void deviceSynchronize(c10::DeviceIndex device) const override { wait_for_device(device); }
};

struct XPUHooks final : Hooks<at::XPUHooksInterface> {
  bool hasXPU() const override { return true; }
  c10::DeviceIndex getNumGPUs() const override { return deviceCount(); }
  c10::DeviceIndex current_device() const override { return getCurrentDevice(); }
  void deviceSynchronize(c10::DeviceIndex device) const override { wait_for_device(device); }
};

struct MPSHooks final : Hooks<at::MPSHooksInterface> {
  bool hasMPS() const override { return true; }
  void deviceSynchronize() const override { wait_for_device(0); }
};

struct OtherHooks final : Hooks<at::PrivateUse1HooksInterface> {
  void resizePrivateUse1Bytes(const c10::Storage& storage, std::size_t bytes) const override {
    const c10::DeviceGuard on(storage.device());
    auto moved = allocator()->allocate(bytes);
    const std::size_t kept = std::min(bytes, storage.nbytes());
    if (kept) allocator()->copy_data(moved.get(), storage.data(), kept);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(moved));
    storage.unsafeGetStorageImpl()->set_nbytes(bytes);
  }
};

[[maybe_unused]] const bool hooked = [] {
  if (kKind == "cuda")
    at::CUDAHooksRegistry()->Register(
        "CUDAHooks", [](at::CUDAHooksArgs) { return std::make_unique<CUDAHooks>(); });
  else if (kKind == "xpu")
    at::XPUHooksRegistry()->Register("XPUHooks", [] { return std::make_unique<XPUHooks>(); });
  else if (kKind == "mps")
    at::MPSHooksRegistry()->Register("MPSHooks", [] { return std::make_unique<MPSHooks>(); });
  else
    at::RegisterPrivateUse1HooksInterface(new OtherHooks);
  return true;
}();

}  // namespace

int current_device() { return t_device; }

void set_current_device(int device) {
  TORCH_CHECK(device >= 0 && device < kCount, "CUDA error: invalid device ordinal");
  t_device = device;
}

c10::Stream current_stream(int device) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(kType, static_cast<c10::DeviceIndex>(device)),
                     t_streams[device]);
}

const at::Generator& default_generator(int device) {
  static const auto* made = [] {
    auto* all = new std::vector<at::Generator>;
    for (int i = 0; i < kCount; ++i) {
      all->push_back(at::make_generator<DeviceGenerator>(i));
      all->back().set_current_seed(c10::default_rng_seed_val);
    }
    return all;
  }();
  return made->at(static_cast<std::size_t>(device));
}

at::Generator drawing(const at::Generator& of_device) {
  return static_cast<DeviceGenerator*>(of_device.unsafeGetGeneratorImpl())->own;
}

}  // namespace standin

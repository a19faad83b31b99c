// Every operator on the devices: the host's own kernel, on tensors that share the device's memory.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <random>
#include <vector>

#include "device.hpp"
#include "memory.hpp"
#include "order.hpp"
#include "plain.hpp"

namespace standin {
namespace {

using c10::IValue;

bool ours(const at::Tensor& t) { return t.defined() && t.device().type() == kType; }

// As Apple's devices have it.
at::ScalarType known(at::ScalarType dtype) {
  TORCH_CHECK_TYPE(kKind != "mps" || (dtype != at::kDouble && dtype != at::kComplexDouble),
                   "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't "
                   "support float64. Please use float32 instead.");
  return dtype;
}

// Where a tensor's elements begin, and how many bytes there are to the end of the last.
std::pair<const void*, std::size_t> extent(const at::Tensor& t) {
  if (!t.numel() || !t.storage().data()) return {nullptr, 0};
  std::int64_t reach = 1;
  for (std::int64_t dim = 0; dim < t.dim(); ++dim) reach += (t.size(dim) - 1) * t.stride(dim);
  const auto item = static_cast<std::int64_t>(t.element_size());
  return {static_cast<const char*>(t.storage().data()) + t.storage_offset() * item,
          static_cast<std::size_t>(reach * item)};
}

// The tensors that a call is given, as the host's kernel sees them.
class Call {
 public:
  explicit Call(int device) : device_(device) {}

  at::Tensor host(const at::Tensor& t, Access access = Access::read) {
    if (!ours(t)) return t;
    const auto [first, bytes] = extent(t);
    touch(first, bytes, current_stream(t.device().index()), access);
    for (const auto& [device, host] : given_)
      if (device.is_same(t)) return host;
    auto* storage = t.storage().unsafeGetStorageImpl();
    if (t.storage().data()) opened_.emplace_back(t.storage().data());
    const c10::Storage shared(c10::Storage::use_byte_size_t(), storage->nbytes(),
                              c10::DataPtr(storage->mutable_data(), c10::Device(c10::kCPU)),
                              at::getCPUAllocator(), true);
    auto made = at::detail::make_tensor<c10::TensorImpl>(
        c10::Storage(shared), c10::DispatchKeySet(c10::DispatchKey::CPU), t.dtype());
    made.unsafeGetTensorImpl()->set_storage_offset(t.storage_offset());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
    if (t.is_conj()) made._set_conj(true);
    if (t.is_neg()) made._set_neg(true);
    given_.emplace_back(t, made);
    return made;
  }

  IValue host(const IValue& value, Access access) {
    if (value.isTensor()) return host(value.toTensor(), access);
    if (value.isDevice() && value.toDevice().type() == kType) return c10::Device(c10::kCPU);
    if (value.isGenerator() && value.toGenerator().device().type() == kType)
      return drawing(value.toGenerator());
    if (value.isTensorList()) {
      c10::List<at::Tensor> made;
      for (const at::Tensor& t : value.toTensorVector()) made.push_back(host(t, access));
      return made;
    }
    if (value.isList() && value.toList().elementType()->kind() == c10::TypeKind::OptionalType) {
      c10::List<std::optional<at::Tensor>> made;
      for (const IValue& each : value.toListRef())
        made.push_back(each.isTensor() ? std::make_optional(host(each.toTensor(), access))
                                       : std::nullopt);
      return made;
    }
    return value;
  }

  // What the program gets for what the kernel returned.
  IValue device(const IValue& value) {
    if (value.isTensor()) return device(value.toTensor());
    if (value.isTensorList()) {
      c10::List<at::Tensor> made;
      for (const at::Tensor& t : value.toTensorVector()) made.push_back(device(t));
      return made;
    }
    return value;
  }

  // What kernels did to the shapes and the memory of what they were given.
  void settle() {
    for (auto& [t, host] : given_) {
      auto* impl = t.unsafeGetTensorImpl();
      const auto& storage = host.storage();
      if (storage.data() != t.storage().data()) {
        auto data = fresh(storage);
        t.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(data));
      }
      if (storage.nbytes() != t.storage().nbytes())
        t.storage().unsafeGetStorageImpl()->set_nbytes(storage.nbytes());
      if (t.sizes() != host.sizes() || t.strides() != host.strides() ||
          t.storage_offset() != host.storage_offset())
        impl->set_sizes_and_strides(host.sizes(), host.strides(), host.storage_offset());
    }
  }

 private:
  c10::DataPtr fresh(const c10::Storage& host) const {
    const c10::DeviceGuard guard(c10::Device(kType, static_cast<c10::DeviceIndex>(device_)));
    auto data = allocator()->allocate(host.nbytes());
    if (host.nbytes()) {
      const Opened to(data.get());
      touch(data.get(), host.nbytes(), current_stream(device_), Access::write);
      std::memcpy(data.get(), host.data(), host.nbytes());
    }
    return data;
  }

  at::Tensor device(const at::Tensor& t) {
    if (!t.defined()) return t;
    for (const auto& [device, host] : given_)
      if (host.is_same(t)) return device;
    known(t.scalar_type());
    c10::Storage storage;
    for (const auto& [device, host] : given_)
      if (host.storage().is_alias_of(t.storage())) storage = device.storage();
    for (const auto& [device, host] : made_)
      if (host.storage().is_alias_of(t.storage())) storage = device.storage();
    if (!storage)
      storage = c10::Storage(c10::Storage::use_byte_size_t(), t.storage().nbytes(),
                             fresh(t.storage()), allocator(), true);
    auto made = at::detail::make_tensor<c10::TensorImpl>(std::move(storage),
                                                         c10::DispatchKeySet(kKey), t.dtype());
    made.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
    if (t.is_conj()) made._set_conj(true);
    if (t.is_neg()) made._set_neg(true);
    made_.emplace_back(made, t);
    return made;
  }

  int device_;
  std::vector<std::pair<at::Tensor, at::Tensor>> given_, made_;
  std::vector<Opened> opened_;
};

int device_of(const torch::jit::Stack& stack, std::size_t first) {
  for (std::size_t i = first; i < stack.size(); ++i) {
    const IValue& value = stack[i];
    if (value.isDevice() && value.toDevice().type() == kType && value.toDevice().has_index())
      return value.toDevice().index();
    if (value.isTensor() && ours(value.toTensor())) return value.toTensor().device().index();
    if (value.isList())
      for (const IValue& each : value.toListRef())
        if (each.isTensor() && ours(each.toTensor())) return each.toTensor().device().index();
  }
  return current_device();
}

// Draws of operators that take no generator come from the host's own, lent the device's state.
class Lent {
 public:
  explicit Lent(int device)
      : lock_(mutex()),
        host_(at::detail::getDefaultCPUGenerator()),
        own_(drawing(default_generator(device))),
        before_(host_.get_state()) {
    host_.set_state(own_.get_state());
  }
  ~Lent() {
    own_.set_state(host_.get_state());
    host_.set_state(before_);
  }

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex made;
    return made;
  }
  std::lock_guard<std::recursive_mutex> lock_;
  at::Generator host_, own_;
  at::Tensor before_;
};

// What a graph does again: the results go to the memory that the first ones have.
void again(const at::Tensor& to, const at::Tensor& from) {
  if (!to.defined() || to.storage().is_alias_of(from.storage())) return;
  const Opened target(to.storage().data()), source(from.storage().data());
  if (to.storage().nbytes())
    std::memcpy(to.storage().mutable_data(), from.storage().data(), to.storage().nbytes());
}

void by_the_host(const c10::OperatorHandle& op, torch::jit::Stack* stack);

void recorded(const c10::OperatorHandle& op, torch::jit::Stack given, int device,
              torch::jit::Stack results) {
  record(current_stream(device), [op, given = std::move(given), results = std::move(results)] {
    auto stack = given;
    by_the_host(op, &stack);
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (results[i].isTensor()) again(results[i].toTensor(), stack[i].toTensor());
      if (!results[i].isTensorList()) continue;
      const auto to = results[i].toTensorVector(), from = stack[i].toTensorVector();
      for (std::size_t j = 0; j < to.size(); ++j) again(to[j], from[j]);
    }
  });
}

bool written(const c10::Argument& argument) {
  return argument.alias_info() && argument.alias_info()->isWrite();
}

void by_the_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const std::size_t count = schema.arguments().size();
  const std::size_t first = stack->size() - count;
  const int device = device_of(*stack, first);
  const bool in_graph = captured(current_stream(device));
  torch::jit::Stack given;
  if (in_graph) given.assign(stack->begin() + static_cast<std::ptrdiff_t>(first), stack->end());
  Call call(device);
  bool takes_generator = false;
  for (std::size_t i = 0; i < count; ++i) {
    IValue& value = (*stack)[first + i];
    const bool generator =
        schema.arguments()[i].type()->str().find("Generator") != std::string::npos;
    takes_generator |= generator;
    if (generator && value.isNone())
      value = drawing(default_generator(device));
    else
      value = call.host(value, written(schema.arguments()[i]) ? Access::write : Access::read);
  }
  std::optional<Lent> lent;
  if (!takes_generator && op.hasKernelForDispatchKey(c10::DispatchKey::CPU) &&
      std::ranges::count(op.getTags(), at::Tag::nondeterministic_seeded))
    lent.emplace(device);
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  lent.reset();
  call.settle();
  const std::size_t results = schema.returns().size();
  for (std::size_t i = stack->size() - results; i < stack->size(); ++i)
    (*stack)[i] = call.device((*stack)[i]);
  if (in_graph)
    recorded(op, std::move(given), device,
             {stack->end() - static_cast<std::ptrdiff_t>(results), stack->end()});
}

at::Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(*device);
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), allocator(),
                                   c10::DispatchKeySet(kKey), known(c10::dtype_or_default(dtype)),
                                   format);
}

at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device> device, std::optional<bool>) {
  const c10::DeviceGuard guard(*device);
  return at::detail::empty_strided_generic(
      C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), allocator(),
      c10::DispatchKeySet(kKey), known(c10::dtype_or_default(dtype)));
}

void transfer(at::Tensor to, const at::Tensor& from) {
  if (ours(from) && ours(to) && from.device() != to.device()) {
    // Both devices' current streams wait for each other.
    const auto one = current_stream(from.device().index());
    const auto other = current_stream(to.device().index());
    after(other, so_far(one));
    after(one, so_far(other));
  }
  Call call((ours(from) ? from : to).device().index());
  call.host(to, Access::write).copy_(call.host(from));
}

// To the host without a wait: what is copied is there once somebody has waited.
at::Tensor& copy_(at::Tensor& self, const at::Tensor& source, bool non_blocking) {
  const bool inside = ours(source) && ours(self);
  const auto stream = current_stream((ours(source) ? source : self).device().index());
  if (captured(stream)) record(stream, [self, source] { transfer(self, source); });
  if (inside || captured(stream)) {
    transfer(self, source);
  } else if (!non_blocking) {
    synchronizing(stream);
    transfer(self, source);
  } else if (ours(self)) {
    transfer(self, source);
  } else {
    Call call(source.device().index());
    later(stream, [self, now = call.host(source).clone()] {
      const Plain plain;
      at::Tensor(self).copy_(now);
    });
  }
  return self;
}

// As atomic operations have it: in an order that nobody knows.
at::Tensor some_order(std::int64_t count) {
  std::vector<std::int64_t> places(static_cast<std::size_t>(count));
  std::iota(places.begin(), places.end(), 0);
  static thread_local std::minstd_rand entropy{std::random_device{}()};
  std::shuffle(places.begin(), places.end(), entropy);
  return at::tensor(places);
}

at::Tensor& index_add_out(const at::Tensor& self, std::int64_t dim, const at::Tensor& index,
                          const at::Tensor& source, const at::Scalar& alpha, at::Tensor& out) {
  Call call(self.device().index());
  at::Tensor to = call.host(out, Access::write);
  const auto order = some_order(index.numel());
  at::index_add_out(to, call.host(self), dim, call.host(index).index_select(0, order),
                    call.host(source).index_select(dim, order), alpha);
  call.settle();
  return out;
}

at::Tensor nonzero(const at::Tensor& self) {
  synchronizing(current_stream(self.device().index()));
  Call call(self.device().index());
  return at::nonzero(call.host(self)).to(self.device());
}

at::Scalar item(const at::Tensor& self) {
  const auto stream = current_stream(self.device().index());
  TORCH_CHECK(!captured(stream), "CUDA error: operation not permitted when stream is capturing");
  synchronizing(stream);
  Call call(self.device().index());
  return call.host(self).item();
}

// The host has none; the last result is what a backward pass would want.
std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell(
    const at::Tensor& input, const at::Tensor& hidden, const at::Tensor& cell,
    const std::optional<at::Tensor>& input_bias, const std::optional<at::Tensor>& hidden_bias) {
  at::Tensor gates = input + hidden;
  if (input_bias && input_bias->defined()) gates = gates + *input_bias + *hidden_bias;
  const auto parts = gates.chunk(4, 1);
  const at::Tensor next = parts[1].sigmoid() * cell + parts[0].sigmoid() * parts[2].tanh();
  return {parts[3].sigmoid() * next.tanh(), next, gates};
}

// Makers of devices that torch has no convolution for bring their own under these names.
at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight,
                       const std::optional<at::Tensor>& bias, c10::SymIntArrayRef stride,
                       c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation, bool transposed,
                       c10::SymIntArrayRef output_padding, c10::SymInt groups) {
  Call call(input.device().index());
  const auto on_host = bias ? std::make_optional(call.host(*bias)) : bias;
  return at::convolution_symint(call.host(input), call.host(weight), on_host, stride, padding,
                                dilation, transposed, output_padding, groups)
      .to(input.device());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& gradient, const at::Tensor& input, const at::Tensor& weight,
    c10::SymIntArrayRef stride, c10::SymIntArrayRef padding, c10::SymIntArrayRef dilation,
    bool transposed, c10::SymIntArrayRef output_padding, c10::SymInt groups,
    std::array<bool, 3> wanted) {
  Call call(input.device().index());
  const std::vector<c10::SymInt> bias{transposed ? weight.sym_size(1) * groups
                                                 : weight.sym_size(0)};
  const auto made = at::convolution_backward_symint(
      call.host(gradient), call.host(input), call.host(weight), c10::SymIntArrayRef(bias), stride,
      padding, dilation, transposed, output_padding, groups, wanted);
  const auto there = [&](const at::Tensor& t) { return t.defined() ? t.to(input.device()) : t; };
  return {there(std::get<0>(made)), there(std::get<1>(made)), there(std::get<2>(made))};
}

bool no_ctc(const at::Tensor&, const at::Tensor&, at::IntArrayRef, at::IntArrayRef, std::int64_t) {
  return false;
}

bool no_ctc_of_tensors(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                       std::int64_t) {
  return false;
}

void record_stream(at::Tensor& self, at::Stream stream) { keep_for(self.storage().data(), stream); }

at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

at::Tensor as_strided(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                      std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset ? std::make_optional(offset->guard_int(__FILE__, __LINE__)) : std::nullopt);
}

at::Tensor& set_storage(at::Tensor& self, at::Storage storage, c10::SymInt offset,
                        c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::set_storage_cpu_(
      self, std::move(storage), offset.guard_int(__FILE__, __LINE__), C10_AS_INTARRAYREF_SLOW(size),
      C10_AS_INTARRAYREF_SLOW(stride));
}

torch::Library library(const char* operators) {
  return {torch::Library::IMPL, operators, kKey, __FILE__, __LINE__};
}

[[maybe_unused]] const auto everything = [] {
  auto m = library("_");
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&by_the_host>());
  return m;
}();

[[maybe_unused]] const auto some = [] {
  auto m = library("aten");
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("copy_", &copy_);
  m.impl("_local_scalar_dense", &item);
  m.impl("index_add.out", &index_add_out);
  m.impl("_thnn_fused_lstm_cell", &lstm_cell);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
  m.impl("_use_cudnn_ctc_loss", &no_ctc);
  m.impl("_use_cudnn_ctc_loss.Tensor", &no_ctc_of_tensors);
  m.impl("_use_miopen_ctc_loss", &no_ctc);
  m.impl("_use_miopen_ctc_loss.Tensor", &no_ctc_of_tensors);
  m.impl("nonzero", &nonzero);
  m.impl("record_stream", &record_stream);
  m.impl("view", &view);
  m.impl("as_strided", &as_strided);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
  m.impl("set_.source_Tensor", &at::native::set_tensor_);
  m.impl("set_.source_Storage", &at::native::set_);
  m.impl("set_", &at::native::set_cpu_);
  return m;
}();

// Matrix products in lower precision where a program asks for that. Torch has its own for devices
// that it knows.
[[maybe_unused]] const auto autocast = [] {
  std::vector<torch::Library> made;
  if (kKey != c10::DispatchKey::PrivateUse1) return made;
  constexpr auto key = c10::DispatchKey::AutocastPrivateUse1;
  made.emplace_back(torch::Library::IMPL, "_", key, __FILE__, __LINE__)
      .fallback(torch::CppFunction::makeFallthrough());
  auto& m = made.emplace_back(torch::Library::IMPL, "aten", key, __FILE__, __LINE__);
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(matmul, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(mm, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(addmm, lower_precision_fp)
  return made;
}();

}  // namespace
}  // namespace standin

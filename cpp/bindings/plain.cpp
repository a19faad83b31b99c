#include "plain.hpp"

#include <array>

#include "../src/readable.hpp"
#include "repro_audit/dtype.hpp"

namespace repro_audit::bindings {
namespace {

namespace py = pybind11;

// Owns a reference; null where there was an error.
using Object = py::object;

// Set once, by `exchange`.
const dlpack::Exchange* table = nullptr;
std::array<PyTypeObject*, 2> plain_types{};

// A method without arguments of torch's C types, called without looking it up each time.
class Method {
 public:
  Method() = default;

  Method(PyObject* type, const char* name) {
    // Never freed: the type lives as long as the process.
    PyObject* found = PyObject_GetAttrString(type, name);
    if (found == nullptr) throw py::error_already_set();
    if (!Py_IS_TYPE(found, &PyMethodDescr_Type)) return;
    const PyMethodDef* method = reinterpret_cast<PyMethodDescrObject*>(found)->d_method;
    if (method->ml_flags == METH_NOARGS) call_ = method->ml_meth;
  }

  explicit operator bool() const { return call_ != nullptr; }

  Object operator()(PyObject* self) const {
    return py::reinterpret_steal<Object>(call_(self, nullptr));
  }

 private:
  PyCFunction call_ = nullptr;
};

// Set once, by `exchange`.
struct Methods {
  Method is_neg, is_conj, untyped_storage, data_ptr, nbytes, resizable;

  static Methods of(PyObject* tensor, PyObject* storage) {
    return {{tensor, "is_neg"},    {tensor, "is_conj"}, {tensor, "untyped_storage"},
            {storage, "data_ptr"}, {storage, "nbytes"}, {storage, "resizable"}};
  }

  bool complete() const {
    return is_neg && is_conj && untyped_storage && data_ptr && nbytes && resizable;
  }
};
Methods methods;
PyTypeObject* storage_type = nullptr;

// The tag of a dtype of DLPack's, 0 for one that has none, and whether its numbers may be those of
// a negative or a conjugate view.
struct Kind {
  u64 tag = 0;
  bool negative = false;
  bool conjugate = false;
};

u64 of_width(u8 bits, u64 first) {
  switch (bits) {
    case 8: return first;
    case 16: return first + 2;
    case 32: return first + 4;
    case 64: return first + 6;
    default: return 0;
  }
}

Kind kind_of(const dlpack::Tensor& tensor) {
  const auto tag = [](Tag t) { return static_cast<u64>(t); };
  const u8 bits = tensor.bits;
  if (tensor.lanes != 1) return {};
  switch (tensor.code) {
    case 0: return {of_width(bits, tag(Tag::int8)), true, false};
    case 1: return {of_width(bits, tag(Tag::uint8)), true, false};
    case 2:
      if (bits == 16) return {tag(Tag::float16), true, false};
      if (bits == 32) return {tag(Tag::float32), true, false};
      if (bits == 64) return {tag(Tag::float64), true, false};
      return {};
    case 4: return {bits == 16 ? tag(Tag::bfloat16) : 0, true, false};
    case 5:
      if (bits == 32) return {tag(Tag::complex32), true, true};
      if (bits == 64) return {tag(Tag::complex64), true, true};
      if (bits == 128) return {tag(Tag::complex128), true, true};
      return {};
    case 6: return {bits == 8 ? tag(Tag::boolean) : 0, false, false};
    case 10: return {tag(Tag::float8_e4m3fn), false, false};
    case 11: return {tag(Tag::float8_e4m3fnuz), false, false};
    case 12: return {tag(Tag::float8_e5m2), false, false};
    case 13: return {tag(Tag::float8_e5m2fnuz), false, false};
    case 14: return {tag(Tag::float8_e8m0fnu), false, false};
    default: return {};
  }
}

// The address behind a tensor's storage; 0 where it has none, or one that is not there.
u64 storage_end(PyObject* t, bool on_host) {
  const Object storage = methods.untyped_storage(t);
  if (!storage || Py_TYPE(storage.ptr()) != storage_type) return 0;
  const Object start = methods.data_ptr(storage.ptr());
  const Object size = methods.nbytes(storage.ptr());
  const Object own = methods.resizable(storage.ptr());
  if (!start || !size || !own) return 0;
  const u64 address = PyLong_AsUnsignedLongLong(start.ptr());
  const u64 nbytes = PyLong_AsUnsignedLongLong(size.ptr());
  if (PyErr_Occurred() != nullptr || address == 0 || nbytes == 0) return 0;
  // Memory that is not torch's own, a mapped file's, may be gone.
  if (on_host && own.ptr() != Py_True && !readable(reinterpret_cast<const u8*>(address), nbytes))
    return 0;
  return address + nbytes;
}

// Counts elements and bytes and tells whether they lie together; false from 2^63 bytes on.
bool measure(Plain& plain) {
  u64 numel = 1;
  bool empty = false;
  for (int d = 0; d < plain.tensor.ndim; ++d) empty = empty || plain.tensor.shape[d] == 0;
  plain.contiguous = true;
  for (int d = plain.tensor.ndim; d-- > 0 && !empty;) {
    const u64 size = static_cast<u64>(plain.tensor.shape[d]);
    const bool steps = plain.tensor.strides != nullptr && size != 1;
    if (steps && plain.tensor.strides[d] != static_cast<i64>(numel)) plain.contiguous = false;
    if (__builtin_mul_overflow(numel, size, &numel)) return false;
  }
  plain.nbytes = 0;
  if (empty) return true;
  return !__builtin_mul_overflow(numel, plain.itemsize, &plain.nbytes) && plain.nbytes >> 63 == 0;
}

bool place(Plain& plain, int device_type, const Kind& kind) {
  if (plain.tensor.device_type != device_type) return false;
  plain.tag = kind.tag;
  plain.itemsize = plain.tensor.bits / 8U;
  plain.address = reinterpret_cast<u64>(plain.tensor.data) + plain.tensor.byte_offset;
  return kind.tag != 0 && measure(plain);
}

}  // namespace

bool place(Plain& plain, int device_type) {
  return place(plain, device_type, kind_of(plain.tensor));
}

bool describe(PyObject* t, int device_type, Plain& plain) {
  if (table == nullptr || (Py_TYPE(t) != plain_types[0] && Py_TYPE(t) != plain_types[1])) {
    return false;
  }
  const auto found = [&] {
    if (table->describe(t, &plain.tensor) != 0) return false;
    const Kind kind = kind_of(plain.tensor);
    if (!place(plain, device_type, kind)) return false;
    if (plain.nbytes == 0) return true;
    if (kind.negative && methods.is_neg(t).ptr() != Py_False) return false;
    if (kind.conjugate && methods.is_conj(t).ptr() != Py_False) return false;
    plain.end = storage_end(t, device_type == dlpack::kCpu);
    if (plain.end == 0) return false;
    return !plain.contiguous || plain.address + plain.nbytes <= plain.end;
  }();
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  return found;
}

Strided strided_of(const Plain& plain) {
  const auto rank = static_cast<std::size_t>(plain.tensor.ndim);
  Strided view{reinterpret_cast<const u8*>(plain.address), std::vector<u64>(rank),
               std::vector<i64>(rank), plain.itemsize};
  for (std::size_t d = 0; d < rank; ++d) {
    view.sizes[d] = static_cast<u64>(plain.tensor.shape[d]);
    view.strides[d] = plain.tensor.strides[d];
  }
  return view;
}

bool exchange(const py::object& capsule, const py::type& tensor, const py::type& parameter,
              const py::type& storage) {
  const auto* given =
      static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(capsule.ptr(), dlpack::kCapsule));
  if (given == nullptr) throw py::error_already_set();
  if (given->major != dlpack::kMajor || given->describe == nullptr) return false;
  methods = Methods::of(tensor.ptr(), storage.ptr());
  if (!methods.complete()) return false;
  table = given;
  storage_type = reinterpret_cast<PyTypeObject*>(py::object(storage).release().ptr());
  // The types live as long as torch does: for the process.
  plain_types = {reinterpret_cast<PyTypeObject*>(py::object(tensor).release().ptr()),
                 reinterpret_cast<PyTypeObject*>(py::object(parameter).release().ptr())};
  return true;
}

}  // namespace repro_audit::bindings

// Digests of torch's own tensors, asked of torch through DLPack's table of C functions: a few
// pointers instead of ten calls in Python.
#include <array>
#include <cstring>
#include <vector>

#include "../src/dispatch.hpp"
#include "../src/range.hpp"
#include "../src/readable.hpp"
#include "arguments.hpp"
#include "bindings.hpp"
#include "dlpack.hpp"
#include "readers.hpp"
#include "repro_audit/dtype.hpp"

namespace repro_audit::bindings {
namespace {

namespace py = pybind11;

// Set once, by `exchange`.
const dlpack::Exchange* table = nullptr;
std::array<PyTypeObject*, 2> plain_types{};

struct Names {
  PyObject* dlpack = PyUnicode_InternFromString("__dlpack__");
  PyObject* device = PyUnicode_InternFromString("__dlpack_device__");
  PyObject* max_version = Py_BuildValue("(s)", "max_version");
  PyObject* version = Py_BuildValue("(ii)", 1, 0);
};

const Names& names() {
  static const Names all;
  return all;
}

// Owns a reference; null where there was an error.
using Object = py::object;

Object ask(PyObject* self, PyObject* name) {
  return py::reinterpret_steal<Object>(PyObject_CallMethodNoArgs(self, name));
}

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

Kind kind_of(u8 code, u8 bits, u16 lanes) {
  const auto tag = [](Tag t) { return static_cast<u64>(t); };
  if (lanes != 1) return {};
  switch (code) {
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

// A tensor whose stream is strided memory of this process as it lies there.
struct Plain {
  dlpack::Tensor tensor;
  u64 tag;
  u64 address;
  u64 itemsize;
  u64 nbytes;
  u64 end;          // of its storage
  bool contiguous;  // an empty one is
};

// The address behind a tensor's storage; 0 where it has none, or one that is not there.
u64 storage_end(PyObject* t) {
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
  if (own.ptr() != Py_True && !readable(reinterpret_cast<const u8*>(address), nbytes)) return 0;
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

// Takes the dtype, the place and the extent of a tensor of the CPU; false where it has no digest.
bool place(Plain& plain, const Kind& kind) {
  if (plain.tensor.device_type != dlpack::kCpu) return false;
  plain.tag = kind.tag;
  plain.itemsize = plain.tensor.bits / 8U;
  plain.address = reinterpret_cast<u64>(plain.tensor.data) + plain.tensor.byte_offset;
  return kind.tag != 0 && measure(plain);
}

// Whether `t` is such a tensor, and where. No Python error is left: whoever asks the slow way meets
// it again, with words.
bool describe(PyObject* t, Plain& plain) {
  if (table == nullptr || (Py_TYPE(t) != plain_types[0] && Py_TYPE(t) != plain_types[1])) {
    return false;
  }
  const auto found = [&] {
    if (table->describe(t, &plain.tensor) != 0) return false;
    const Kind kind = kind_of(plain.tensor.code, plain.tensor.bits, plain.tensor.lanes);
    if (!place(plain, kind)) return false;
    if (plain.nbytes == 0) return true;
    if (kind.negative && methods.is_neg(t).ptr() != Py_False) return false;
    if (kind.conjugate && methods.is_conj(t).ptr() != Py_False) return false;
    plain.end = storage_end(t);
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

PyObject* digest_plain(const Plain& plain) {
  Lanes lanes;
  if (plain.contiguous) {
    const u8* p = reinterpret_cast<const u8*>(plain.address);
    if (plain.nbytes < kReleaseBytes) {
      lanes = range_lanes(active(), default_keys(), p, plain.nbytes, 0);
    } else {
      const Release release(plain.nbytes);
      lanes = parallel_lanes(active(), default_keys(), p, plain.nbytes, 0, 0);
    }
  } else {
    const Strided view = strided_of(plain);
    if (!ends_by(view, plain.end)) Py_RETURN_NONE;
    const Release release(plain.nbytes);
    lanes = strided_lanes(active(), default_keys(), view, 0);
  }
  const auto printed = in_print_order(finalize(lanes, plain.nbytes, plain.tag));
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(printed.data()), printed.size());
}

PyObject* digest_tensor(PyObject*, PyObject* t) {
  Plain plain;
  if (!describe(t, plain)) Py_RETURN_NONE;
  return digest_plain(plain);
}

// Whether the memory that another library shares is there, all of it; sets where it ends.
bool is_there(Plain& plain) {
  i64 low = 0;
  i64 high = 0;
  for (int d = 0; d < plain.tensor.ndim; ++d) {
    if (plain.contiguous) break;
    i64 span = 0;
    if (__builtin_mul_overflow(plain.tensor.shape[d] - 1, plain.tensor.strides[d], &span) ||
        __builtin_add_overflow(span < 0 ? low : high, span, span < 0 ? &low : &high)) {
      return false;
    }
  }
  i64 before = 0;
  i64 behind = 0;
  const i64 item = static_cast<i64>(plain.itemsize);
  if (__builtin_mul_overflow(low, item, &before) ||
      __builtin_mul_overflow(high + 1, item, &behind)) {
    return false;
  }
  if (plain.contiguous) behind = static_cast<i64>(plain.nbytes);
  plain.end = plain.address + static_cast<u64>(behind);
  const u8* start = reinterpret_cast<const u8*>(plain.address + static_cast<u64>(before));
  return plain.address != 0 && readable(start, static_cast<u64>(behind - before));
}

// What `x` shares through `__dlpack__`, without a copy and for as long as the capsule lives.
Object share(PyObject* x) {
  const Object device = ask(x, names().device);
  if (!device || PyTuple_Check(device.ptr()) == 0 || PyTuple_GET_SIZE(device.ptr()) != 2) return {};
  if (PyLong_AsLong(PyTuple_GET_ITEM(device.ptr(), 0)) != dlpack::kCpu) return {};
  PyObject* given[] = {x, names().version};
  PyObject* capsule = PyObject_VectorcallMethod(names().dlpack, given, 1, names().max_version);
  if (capsule == nullptr && PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
    PyErr_Clear();  // a producer from before versions
    return ask(x, names().dlpack);
  }
  return py::reinterpret_steal<Object>(capsule);
}

const dlpack::Tensor* shared_tensor(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, dlpack::kVersioned) != 0) {
    const auto* held =
        static_cast<dlpack::Versioned*>(PyCapsule_GetPointer(capsule, dlpack::kVersioned));
    return held->major == dlpack::kMajor ? &held->tensor : nullptr;
  }
  if (PyCapsule_IsValid(capsule, dlpack::kManaged) == 0) return nullptr;
  return &static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule, dlpack::kManaged))->tensor;
}

PyObject* digest_shared(PyObject*, PyObject* x) {
  const Object capsule = share(x);
  const dlpack::Tensor* tensor = capsule ? shared_tensor(capsule.ptr()) : nullptr;
  if (PyErr_Occurred() != nullptr) PyErr_Clear();
  if (tensor == nullptr) Py_RETURN_NONE;
  Plain plain;
  plain.tensor = *tensor;
  if (!place(plain, kind_of(tensor->code, tensor->bits, tensor->lanes))) Py_RETURN_NONE;
  if (plain.nbytes != 0 && !is_there(plain)) Py_RETURN_NONE;
  return digest_plain(plain);
}

py::list digest_tensors(const py::list& tensors) {
  const std::size_t count = tensors.size();
  std::vector<py::object> held;  // for as long as their memory is read
  held.reserve(count);
  for (const py::handle t : tensors) held.push_back(py::reinterpret_borrow<py::object>(t));
  std::vector<std::size_t> places;
  places.reserve(count);
  Readers readers(count);
  for (std::size_t i = 0; i < count; ++i) {
    Plain plain;
    if (!describe(held[i].ptr(), plain) || !plain.contiguous) continue;
    readers.add({plain.address, plain.nbytes, plain.tag});
    places.push_back(i);
  }
  const std::vector<u8>* digests = nullptr;
  {
    const Release release(readers.nbytes());
    digests = &readers.finish();
  }
  py::list found(count);
  for (std::size_t i = 0; i < count; ++i) found[i] = py::none();
  for (std::size_t i = 0; i < places.size(); ++i) {
    found[places[i]] = py::bytes(reinterpret_cast<const char*>(digests->data()) + 16 * i, 16);
  }
  return found;
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

PyMethodDef kMethods[] = {
    {"digest_tensor", digest_tensor, METH_O,
     "digest_tensor(tensor, /) -> bytes | None\n\n"
     "The 16-byte digest, key 0, of a plain tensor of this process's memory; None for any other, "
     "and before `exchange`."},
    {"digest_shared", digest_shared, METH_O,
     "digest_shared(array, /) -> bytes | None\n\n"
     "The 16-byte digest, key 0, of what another library shares of this process's memory through "
     "`__dlpack__`; None for what it does not share so."},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void register_exchange(py::module_& module) {
  using namespace py::literals;
  if (PyModule_AddFunctions(module.ptr(), kMethods) != 0) throw py::error_already_set();
  module.def("digest_tensors", &digest_tensors, "tensors"_a, py::pos_only(),
             "As digest_tensor for each of a list that is contiguous, by threads shared among "
             "them.");
  module.def("exchange", &exchange, "capsule"_a, "tensor"_a, "parameter"_a, "storage"_a,
             py::pos_only(),
             "Takes DLPack's table of functions from the capsule for tensors of exactly these two "
             "types, whose storages are of the third; false where this version of torch's is not "
             "understood.");
}

}  // namespace repro_audit::bindings

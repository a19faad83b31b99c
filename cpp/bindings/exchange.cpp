// Digests of plain tensors of the host, and of what other libraries share through DLPack.
#include <algorithm>
#include <vector>

#include "../src/dispatch.hpp"
#include "../src/range.hpp"
#include "../src/readable.hpp"
#include "arguments.hpp"
#include "bindings.hpp"
#include "plain.hpp"
#include "readers.hpp"

namespace repro_audit::bindings {
namespace {

namespace py = pybind11;

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
  if (!describe(t, dlpack::kCpu, plain)) Py_RETURN_NONE;
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
  if (!place(plain, dlpack::kCpu)) Py_RETURN_NONE;
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
    if (!describe(held[i].ptr(), dlpack::kCpu, plain) || !plain.contiguous) continue;
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

py::object sample_tensor(const py::object& t, u64 count) {
  Plain plain;
  if (!describe(t.ptr(), dlpack::kCpu, plain)) return py::none();
  const u64 numel = plain.nbytes / plain.itemsize;
  const u64 taken = std::min(count, numel);
  const u8* p = reinterpret_cast<const u8*>(plain.address);
  Strided view{p, {numel}, {1}, plain.itemsize};
  if (!plain.contiguous) {
    view = strided_of(plain);
    if (!ends_by(view, plain.end)) return py::none();
  }
  py::bytes found(nullptr, taken * plain.itemsize);
  u8* to = reinterpret_cast<u8*>(PyBytes_AS_STRING(found.ptr()));
  if (plain.contiguous && taken == numel) {
    std::copy_n(p, plain.nbytes, to);
  } else if (taken != 0) {
    sample(view, taken, to);
  }
  return found;
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
  module.def("sample_tensor", &sample_tensor, "tensor"_a, "count"_a, py::pos_only(),
             "The bytes of `count` sampled elements, all if there are fewer, of a plain tensor of "
             "this process's memory; None for any other.");
  module.def("exchange", &exchange, "capsule"_a, "tensor"_a, "parameter"_a, "storage"_a,
             py::pos_only(),
             "Takes DLPack's table of functions from the capsule for tensors of exactly these two "
             "types, whose storages are of the third; false where this version of torch's is not "
             "understood.");
}

}  // namespace repro_audit::bindings

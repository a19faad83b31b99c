#include "arguments.hpp"

namespace repro_audit::bindings {
namespace {

bool fail(const char* message) {
  PyErr_SetString(PyExc_ValueError, message);
  return false;
}

// Reads a tuple (or another sequence) of integers.
template <class T>
bool parse_integers(PyObject* sequence, std::vector<T>& values) {
  PyObject* fast = PySequence_Fast(sequence, "sizes and strides are sequences of integers");
  if (fast == nullptr) return false;
  const Py_ssize_t count = PySequence_Fast_GET_SIZE(fast);
  values.reserve(static_cast<std::size_t>(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    values.push_back(static_cast<T>(PyLong_AsLongLong(PySequence_Fast_GET_ITEM(fast, i))));
    if (values.back() == static_cast<T>(-1) && PyErr_Occurred() != nullptr) {
      Py_DECREF(fast);
      return false;
    }
  }
  Py_DECREF(fast);
  return true;
}

}  // namespace

const u8* pointer(u64 address, u64 nbytes) {
  if (address == 0 && nbytes != 0) {
    throw pybind11::value_error("bytes to read at the null address");
  }
  return reinterpret_cast<const u8*>(address);
}

bool parse_strided(u64 address, PyObject* sizes, PyObject* strides, u64 itemsize, Strided& view) {
  view.data = reinterpret_cast<const u8*>(address);
  view.itemsize = itemsize;
  if (!parse_integers(sizes, view.sizes) || !parse_integers(strides, view.strides)) return false;
  if (view.sizes.size() != view.strides.size()) return fail("sizes and strides differ in length");
  if (itemsize == 0 || itemsize > 16 || (itemsize & (itemsize - 1)) != 0) {
    return fail("itemsize must be 1, 2, 4, 8 or 16");
  }
  bool empty = false;
  for (const u64 size : view.sizes) empty = empty || size == 0;
  u64 nbytes = itemsize;
  for (const u64 size : view.sizes) {
    if (size >> 63 != 0) return fail("a size is negative");
    if (!empty && (__builtin_mul_overflow(nbytes, size, &nbytes) || nbytes >> 63 != 0)) {
      return fail("sizes overflow");
    }
  }
  if (!empty && address == 0) return fail("bytes to read at the null address");
  return true;
}

Strided strided(u64 address, pybind11::handle sizes, pybind11::handle strides, u64 itemsize) {
  Strided view;
  if (!parse_strided(address, sizes.ptr(), strides.ptr(), itemsize, view)) {
    throw pybind11::error_already_set();
  }
  return view;
}

}  // namespace repro_audit::bindings

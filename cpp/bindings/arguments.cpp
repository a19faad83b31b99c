#include "arguments.hpp"

#include <cstring>

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

bool ends_by(const Strided& view, u64 end) {
  u64 last = 0;  // elements from the first to the furthest
  for (std::size_t d = 0; d < view.sizes.size(); ++d) {
    if (view.sizes[d] == 0) return true;
    u64 span = 0;
    if (view.strides[d] <= 0) continue;
    if (__builtin_mul_overflow(view.sizes[d] - 1, static_cast<u64>(view.strides[d]), &span) ||
        __builtin_add_overflow(last, span, &last)) {
      return false;
    }
  }
  const u64 address = reinterpret_cast<u64>(view.data);
  return address < end && last < (end - address) / view.itemsize;
}

std::array<u8, 16> in_print_order(Digest digest) {
  const u64 words[2] = {__builtin_bswap64(digest.hi), __builtin_bswap64(digest.lo)};
  std::array<u8, 16> printed;
  std::memcpy(printed.data(), words, sizeof words);
  return printed;
}

}  // namespace repro_audit::bindings

#include <pybind11/stl.h>

#include <array>
#include <vector>

#include "../src/dispatch.hpp"
#include "../src/range.hpp"
#include "../src/read.hpp"
#include "../src/readable.hpp"
#include "arguments.hpp"
#include "bindings.hpp"

namespace repro_audit::bindings {
namespace {

namespace py = pybind11;

PyObject* to_bytes(Digest digest) {
  const auto printed = in_print_order(digest);
  return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(printed.data()), printed.size());
}

// Calls work(keys) with the table of `key`.
template <class Work>
Lanes with_keys(u64 key, Work&& work) {
  return key == 0 ? work(default_keys()) : work(KeyTable(key));
}

// A call on a small tensor happens at every recorded op, so `digest` and `digest_strided` skip
// pybind11's argument loader, which costs more than the digest of a small tensor.
bool parse_unsigned(PyObject* const* args, Py_ssize_t from, Py_ssize_t nargs, u64* value) {
  for (Py_ssize_t i = from; i < nargs; ++i) {
    *value = PyLong_AsUnsignedLongLong(args[i]);
    if (*value == ~u64{0} && PyErr_Occurred() != nullptr) return false;
    ++value;
  }
  return true;
}

PyObject* digest(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs < 3 || nargs > 5) {
    PyErr_SetString(PyExc_TypeError, "expected digest(address, nbytes, tag, key=0, threads=0, /)");
    return nullptr;
  }
  std::array<u64, 5> value{};
  if (!parse_unsigned(args, 0, nargs, value.data())) return nullptr;
  const auto [address, nbytes, tag, key, threads] = value;
  if (address == 0 && nbytes != 0) {
    PyErr_SetString(PyExc_ValueError, "digest: bytes to read at the null address");
    return nullptr;
  }
  const u8* p = reinterpret_cast<const u8*>(address);
  if (nbytes < kReleaseBytes && key == 0) {
    return to_bytes(finalize(range_lanes(active(), default_keys(), p, nbytes, 0), nbytes, tag));
  }
  Lanes lanes;
  {
    const Release release(nbytes);
    lanes = with_keys(key, [&, n = nbytes, t = threads](const KeyTable& keys) {
      return parallel_lanes(active(), keys, p, n, 0, static_cast<unsigned>(t));
    });
  }
  return to_bytes(finalize(lanes, nbytes, tag));
}

PyObject* digest_strided(PyObject*, PyObject* const* args, Py_ssize_t nargs) {
  if (nargs < 5 || nargs > 8) {
    PyErr_SetString(PyExc_TypeError,
                    "expected digest_strided(address, sizes, strides, itemsize, tag, key=0, "
                    "threads=0, end=0, /)");
    return nullptr;
  }
  u64 address = 0;
  std::array<u64, 5> value{};
  if (!parse_unsigned(args, 0, 1, &address) || !parse_unsigned(args, 3, nargs, value.data())) {
    return nullptr;
  }
  const auto [itemsize, tag, key, threads, end] = value;
  Strided view;
  if (!parse_strided(address, args[1], args[2], itemsize, view)) return nullptr;
  if (end != 0 && !ends_by(view, end)) {
    PyErr_SetString(PyExc_ValueError, "digest_strided: elements at or behind `end`");
    return nullptr;
  }
  const u64 nbytes = view.nbytes();
  Lanes lanes;
  {
    const Release release(nbytes);
    lanes = with_keys(key, [&, t = threads](const KeyTable& keys) {
      return strided_lanes(active(), keys, view, static_cast<unsigned>(t));
    });
  }
  return to_bytes(finalize(lanes, nbytes, tag));
}

// PyMethodDef holds a PyCFunction whatever the calling convention; the flags say which it is.
PyCFunction method(PyObject* (*f)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}

PyMethodDef kMethods[] = {
    {"digest", method(digest), METH_FASTCALL,
     "digest(address, nbytes, tag, key=0, threads=0, /) -> bytes\n\n"
     "The 16-byte digest of the stream of `nbytes` bytes at `address`."},
    {"digest_strided", method(digest_strided), METH_FASTCALL,
     "digest_strided(address, sizes, strides, itemsize, tag, key=0, threads=0, end=0, /) -> "
     "bytes\n\n"
     "The 16-byte digest of strided elements; `strides` are in elements. Where `end` is given, no "
     "element may lie at that address or behind it."},
    {nullptr, nullptr, 0, nullptr}};

py::tuple pair(Lanes lanes) { return py::make_tuple(lanes.l0, lanes.l1); }

py::tuple lanes(u64 address, u64 nbytes, u64 offset, u64 key, unsigned threads) {
  const u8* p = pointer(address, nbytes);
  Lanes sum;
  {
    const Release release(nbytes);
    sum = with_keys(key, [&](const KeyTable& keys) {
      return parallel_lanes(active(), keys, p, nbytes, offset, threads);
    });
  }
  return pair(sum);
}

py::tuple box_lanes_of(u64 address, const py::object& sizes, const py::object& strides,
                       u64 itemsize, const std::vector<u64>& whole, const std::vector<u64>& start,
                       u64 key, unsigned threads) {
  const Strided view = strided(address, sizes, strides, itemsize);
  if (whole.size() != view.sizes.size() || start.size() != view.sizes.size()) {
    throw py::value_error("box: sizes, whole and start differ in length");
  }
  u64 weight = 1;
  Placement placement{0, std::vector<u64>(whole.size())};
  for (std::size_t d = whole.size(); d-- > 0;) {
    if (view.sizes[d] > whole[d] || start[d] > whole[d] - view.sizes[d]) {
      throw py::value_error("box: it does not lie within the whole");
    }
    placement.weights[d] = weight;
    placement.origin += start[d] * weight;
    if (__builtin_mul_overflow(weight, whole[d], &weight) || (weight * itemsize) >> 63 != 0) {
      throw py::value_error("box: the whole has 2^63 bytes or more");
    }
  }
  Lanes sum;
  {
    const Release release(view.nbytes());
    sum = with_keys(key, [&](const KeyTable& keys) {
      return box_lanes(active(), keys, view, placement, threads);
    });
  }
  return pair(sum);
}

py::tuple multiset(u64 address, const py::object& sizes, const py::object& strides, u64 itemsize,
                   u64 key, unsigned threads) {
  const Strided view = strided(address, sizes, strides, itemsize);
  Lanes sum;
  {
    const Release release(view.nbytes());
    sum = multiset_lanes(active(), MultisetKeys::of(key), view, threads);
  }
  return pair(sum);
}

py::bytes sampled(u64 address, const py::object& sizes, const py::object& strides, u64 itemsize,
                  u64 count) {
  const Strided view = strided(address, sizes, strides, itemsize);
  if (count > view.numel()) throw py::value_error("sample: more than there are elements");
  py::bytes found(nullptr, count * itemsize);
  if (count != 0) sample(view, count, reinterpret_cast<u8*>(PyBytes_AS_STRING(found.ptr())));
  return found;
}

py::bytes finalized(u64 lane0, u64 lane1, u64 nbytes, u64 tag) {
  PyObject* bytes = to_bytes(finalize({lane0, lane1}, nbytes, tag));
  if (bytes == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::bytes>(bytes);
}

}  // namespace

void register_digest(py::module_& module) {
  if (PyModule_AddFunctions(module.ptr(), kMethods) != 0) throw py::error_already_set();
  using namespace py::literals;
  module.def("lanes", &lanes, "address"_a, "nbytes"_a, "offset"_a, "key"_a = 0, "threads"_a = 0,
             py::pos_only(),
             "The two lanes of `nbytes` bytes that stand at byte `offset` of their stream.");
  module.def("lanes_box", &box_lanes_of, "address"_a, "sizes"_a, "strides"_a, "itemsize"_a,
             "whole"_a, "start"_a, "key"_a = 0, "threads"_a = 0, py::pos_only(),
             "The two lanes of a box of strided elements that starts at `start` in a tensor of "
             "sizes `whole`.");
  module.def("finalize", &finalized, "lane0"_a, "lane1"_a, "nbytes"_a, "tag"_a, py::pos_only(),
             "The 16-byte digest of a whole stream's lanes.");
  module.def("multiset", &multiset, "address"_a, "sizes"_a, "strides"_a, "itemsize"_a, "key"_a = 0,
             "threads"_a = 0, py::pos_only(),
             "The two multiset lanes of strided elements; finalise them with the tag plus 256.");
  module.def("sample", &sampled, "address"_a, "sizes"_a, "strides"_a, "itemsize"_a, "count"_a,
             py::pos_only(), "The bytes of `count` elements, evenly spread (SPEC.md, section 11).");
  module.def(
      "readable",
      [](u64 address, u64 nbytes) {
        return readable(reinterpret_cast<const u8*>(address), nbytes);
      },
      "address"_a, "nbytes"_a, py::pos_only(),
      "Whether the first and the last of the bytes can be read; True where nobody can tell.");
  module.def(
      "read_sum",
      [](u64 address, u64 nbytes, unsigned threads) {
        const u8* p = pointer(address, nbytes);
        const Release release(nbytes);
        return read_sum(active(), p, nbytes, threads);
      },
      "address"_a, "nbytes"_a, "threads"_a = 0, py::pos_only(),
      "Sum of the bytes as 64-bit words: what reading memory costs, for benchmarks.");
}

}  // namespace repro_audit::bindings

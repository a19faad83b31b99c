// Plain tensors: asked of torch through DLPack's table of C functions, a few pointers instead of
// ten calls in Python.
#pragma once

#include <pybind11/pybind11.h>

#include "../src/strided.hpp"
#include "dlpack.hpp"

namespace repro_audit::bindings {

// A tensor whose stream is strided memory as it lies there, on the host or on one device.
struct Plain {
  dlpack::Tensor tensor;
  u64 tag;
  u64 address;
  u64 itemsize;
  u64 nbytes;
  u64 end;          // of its storage
  bool contiguous;  // an empty one is
};

// Takes DLPack's table of functions for tensors of exactly these two types, whose storages are of
// the third; false where this version of torch's is not understood.
bool exchange(const pybind11::object& capsule, const pybind11::type& tensor,
              const pybind11::type& parameter, const pybind11::type& storage);

// Whether `t` is such a tensor on a device of that type of DLPack's, and where. No Python error is
// left: whoever asks the slow way meets it again, with words. False before `exchange`.
bool describe(PyObject* t, int device_type, Plain& plain);

// Takes the dtype, the place and the extent of `plain.tensor`; false where it is on another device
// or its dtype has no digest. Sets no `end`.
bool place(Plain& plain, int device_type);

Strided strided_of(const Plain& plain);

}  // namespace repro_audit::bindings

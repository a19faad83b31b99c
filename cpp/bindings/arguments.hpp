// Addresses, sizes and strides from Python, checked.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <optional>

#include "../src/strided.hpp"

namespace repro_audit::bindings {

// Below this, releasing and retaking the GIL costs more than it gives to others.
inline constexpr u64 kReleaseBytes = u64{1} << 20;

// Releases the GIL for as long as it lives where there is much to do.
class Release {
 public:
  explicit Release(u64 nbytes) {
    if (nbytes >= kReleaseBytes) release_.emplace();
  }

 private:
  std::optional<pybind11::gil_scoped_release> release_;
};

// The address as a pointer; ValueError for bytes at the null address.
const u8* pointer(u64 address, u64 nbytes);

// False, with a Python error set, where these are not sizes and strides of one length with a
// stream below 2^63 bytes.
bool parse_strided(u64 address, PyObject* sizes, PyObject* strides, u64 itemsize, Strided& view);

// The same, throwing.
Strided strided(u64 address, pybind11::handle sizes, pybind11::handle strides, u64 itemsize);

// Whether all elements of the view lie before address `end`.
bool ends_by(const Strided& view, u64 end);

// A digest as the 16 bytes that are printed: hi, then lo, each from its most significant byte.
std::array<u8, 16> in_print_order(Digest digest);

}  // namespace repro_audit::bindings

#include "../src/dispatch.hpp"
#include "../src/divergence.hpp"
#include "arguments.hpp"
#include "bindings.hpp"

namespace repro_audit::bindings {
namespace {

namespace py = pybind11;

// Bytes of an element of a dtype that has a format; 0 for the others.
u64 itemsize_of(u64 tag) {
  u64 itemsize = 0;
  with_format(static_cast<Tag>(tag),
              [&](auto format) { itemsize = sizeof(typename decltype(format)::Bits); });
  return itemsize;
}

py::object index_or_none(u64 index) {
  return index == kNoIndex ? py::none() : py::object(py::int_(index));
}

py::object values_or_none(u64 index, double a, double b) {
  return index == kNoIndex ? py::none() : py::object(py::make_tuple(a, b));
}

py::dict to_dict(const Divergence& d) {
  using namespace py::literals;
  py::tuple histogram(kHistogramBins);
  for (int i = 0; i < kHistogramBins; ++i) {
    histogram[static_cast<std::size_t>(i)] = py::int_(d.histogram[i]);
  }
  return py::dict("numel"_a = d.numel, "differing"_a = d.differing, "unordered"_a = d.unordered,
                  "nan_payload"_a = d.nan_payload, "signed_zero"_a = d.signed_zero,
                  "infinity"_a = d.infinity, "sign_flips"_a = d.sign_flips, "max_ulp"_a = d.max_ulp,
                  "max_index"_a = index_or_none(d.max_index),
                  "max_values"_a = values_or_none(d.max_index, d.max_a, d.max_b),
                  "first_index"_a = index_or_none(d.first_index),
                  "first_values"_a = values_or_none(d.first_index, d.first_a, d.first_b),
                  "sum_ulp"_a = (py::int_(d.sum_hi) << py::int_(64)) | py::int_(d.sum_lo),
                  "histogram"_a = histogram, "less"_a = d.less, "greater"_a = d.greater,
                  "max_absolute"_a = d.max_absolute, "max_relative"_a = d.max_relative);
}

py::dict ulp(u64 address_a, const py::object& strides_a, u64 address_b, const py::object& strides_b,
             const py::object& sizes, u64 tag_a, u64 tag_b, unsigned threads) {
  if (tag_b == 0) tag_b = tag_a;
  const u64 size_a = itemsize_of(tag_a);
  const u64 size_b = itemsize_of(tag_b);
  if (size_a == 0 || size_b == 0) throw py::value_error("ulp: no dtype with a distance of its own");
  const Strided a = strided(address_a, sizes, strides_a, size_a);
  const Strided b = strided(address_b, sizes, strides_b, size_b);
  Divergence result;
  bool comparable = false;
  {
    const Release release(a.nbytes());
    comparable =
        compare(active(), a, static_cast<Tag>(tag_a), b, static_cast<Tag>(tag_b), threads, result);
  }
  if (!comparable) throw py::value_error("ulp: dtypes without a common format");
  return to_dict(result);
}

}  // namespace

void register_ulp(py::module_& module) {
  using namespace py::literals;
  module.def("ulp", &ulp, "address_a"_a, "strides_a"_a, "address_b"_a, "strides_b"_a, "sizes"_a,
             "tag_a"_a, "tag_b"_a = 0, "threads"_a = 0, py::pos_only(),
             "What two strided tensors of one shape differ by; indices are row-major positions. "
             "Where tag_b is given and differs, numbers of `a` are rounded to the format of `b`.");
}

}  // namespace repro_audit::bindings

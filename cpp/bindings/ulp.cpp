#include <cstring>

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

// Both sides of a comparison, checked.
struct Sides {
  Strided a;
  Strided b;
  Tag tag_a;
  Tag tag_b;

  Sides(u64 address_a, const py::object& strides_a, u64 address_b, const py::object& strides_b,
        const py::object& sizes, u64 given_a, u64 given_b)
      : tag_a(static_cast<Tag>(given_a)),
        tag_b(static_cast<Tag>(given_b == 0 ? given_a : given_b)) {
    const u64 size_a = itemsize_of(static_cast<u64>(tag_a));
    const u64 size_b = itemsize_of(static_cast<u64>(tag_b));
    if (size_a == 0 || size_b == 0) {
      throw py::value_error("ulp: no dtype with a distance of its own");
    }
    a = strided(address_a, sizes, strides_a, size_a);
    b = strided(address_b, sizes, strides_b, size_b);
  }
};

void require(bool comparable) {
  if (!comparable) throw py::value_error("ulp: dtypes without a common format");
}

py::dict ulp(u64 address_a, const py::object& strides_a, u64 address_b, const py::object& strides_b,
             const py::object& sizes, u64 tag_a, u64 tag_b, unsigned threads) {
  const Sides sides(address_a, strides_a, address_b, strides_b, sizes, tag_a, tag_b);
  Divergence result;
  bool comparable = false;
  {
    const Release release(sides.a.nbytes());
    comparable = compare(active(), sides.a, sides.tag_a, sides.b, sides.tag_b, threads, result);
  }
  require(comparable);
  return to_dict(result);
}

py::list ulp_channels(u64 address_a, const py::object& strides_a, u64 address_b,
                      const py::object& strides_b, const py::object& sizes, u64 tag_a, u64 tag_b,
                      u64 dim, unsigned threads) {
  const Sides sides(address_a, strides_a, address_b, strides_b, sizes, tag_a, tag_b);
  if (dim >= sides.a.sizes.size()) throw py::value_error("ulp_channels: no such dimension");
  u64 inner = 1;
  for (std::size_t d = dim + 1; d < sides.a.sizes.size(); ++d) inner *= sides.a.sizes[d];
  std::vector<Channel> channels(sides.a.sizes[dim]);
  bool comparable = false;
  {
    const Release release(sides.a.nbytes());
    comparable = compare_channels(active(), sides.a, sides.tag_a, sides.b, sides.tag_b, inner,
                                  threads, channels);
  }
  require(comparable);
  py::list found;
  for (const Channel& c : channels) {
    found.append(py::make_tuple(c.differing, c.unordered, c.max_ulp));
  }
  return found;
}

// What a GPU's blocks of threads found, merged.
py::dict ulp_merge(const py::buffer& records, u64 numel) {
  const py::buffer_info info = records.request();
  const u64 nbytes = static_cast<u64>(info.size * info.itemsize);
  if (nbytes % sizeof(Divergence) != 0 || PyBuffer_IsContiguous(info.view(), 'C') == 0) {
    throw py::value_error("ulp_merge: no whole records, one after another");
  }
  Divergence total;
  for (u64 at = 0; at < nbytes; at += sizeof(Divergence)) {
    Divergence record;
    std::memcpy(&record, static_cast<const u8*>(info.ptr) + at, sizeof record);
    total.merge(record);
  }
  total.numel = numel;
  total.histogram[0] += numel - total.differing;
  return to_dict(total);
}

}  // namespace

void register_ulp(py::module_& module) {
  using namespace py::literals;
  module.def("ulp", &ulp, "address_a"_a, "strides_a"_a, "address_b"_a, "strides_b"_a, "sizes"_a,
             "tag_a"_a, "tag_b"_a = 0, "threads"_a = 0, py::pos_only(),
             "What two strided tensors of one shape differ by; indices are row-major positions. "
             "Where tag_b is given and differs, numbers of `a` are rounded to the format of `b`.");
  module.def("ulp_merge", &ulp_merge, "records"_a, "numel"_a, py::pos_only(),
             "One answer of the records that the kernels on a GPU wrote for `numel` elements.");
  module.def("ulp_channels", &ulp_channels, "address_a"_a, "strides_a"_a, "address_b"_a,
             "strides_b"_a, "sizes"_a, "tag_a"_a, "tag_b"_a, "dim"_a, "threads"_a = 0,
             py::pos_only(),
             "For each index of dimension `dim`: pairs that differ, unordered pairs, largest "
             "distance.");
}

}  // namespace repro_audit::bindings

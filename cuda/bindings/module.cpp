// `repro_audit._cuda`: launches of the kernels, on memory and streams given by address.
#include <pybind11/pybind11.h>

#include "../../cpp/bindings/arguments.hpp"
#include "../src/launch.hpp"

namespace {

namespace py = pybind11;
using namespace repro_audit;
using namespace py::literals;
using bindings::strided;

cuda::Queue queue(int device, u64 stream) { return {device, reinterpret_cast<void*>(stream)}; }

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() =
      "Kernels on a CUDA device's memory, given by address; see cpp/SPEC.md. Every launch is "
      "asynchronous on the stream given and adds to what is at `out`.";
  module.attr("ROW_BYTES") = sizeof(cuda::Row);
  module.attr("RECORD_BYTES") = sizeof(Divergence);
  module.def(
      "versions",
      [] {
        const cuda::Versions found = cuda::versions();
        return py::make_tuple(found.runtime, found.driver);
      },
      "The CUDA compiled with, and the newest that the driver knows (0: no driver).");
  module.def("units", &cuda::units_of, "nbytes"_a, py::pos_only(),
             "What a tensor of a table counts in `first_unit`.");
  module.def(
      "add_range",
      [](u64 address, u64 nbytes, u64 offset, u64 key, u64 out, int device, u64 stream) {
        bindings::pointer(address, nbytes);
        cuda::add_range(address, nbytes, offset, key, out, queue(device, stream));
      },
      "address"_a, "nbytes"_a, "offset"_a, "key"_a, "out"_a, "device"_a, "stream"_a, py::pos_only(),
      "Adds the lanes of bytes that stand at `offset` of their stream.");
  module.def(
      "add_strided",
      [](u64 address, const py::object& sizes, const py::object& strides, u64 itemsize, u64 key,
         u64 out, int device, u64 stream) {
        cuda::add_strided(strided(address, sizes, strides, itemsize), key, out,
                          queue(device, stream));
      },
      "address"_a, "sizes"_a, "strides"_a, "itemsize"_a, "key"_a, "out"_a, "device"_a, "stream"_a,
      py::pos_only(), "Adds the lanes of a strided tensor's stream.");
  module.def(
      "add_table",
      [](u64 rows, u64 count, u64 units, u64 key, u64 out, int device, u64 stream) {
        cuda::add_table(rows, count, units, key, out, queue(device, stream));
      },
      "rows"_a, "count"_a, "units"_a, "key"_a, "out"_a, "device"_a, "stream"_a, py::pos_only(),
      "Adds the lanes of `count` tensors: rows of (address, nbytes, first_unit) as u64.");
  module.def(
      "add_multiset",
      [](u64 address, const py::object& sizes, const py::object& strides, u64 itemsize, u64 key,
         u64 out, int device, u64 stream) {
        cuda::add_multiset(strided(address, sizes, strides, itemsize), key, out,
                           queue(device, stream));
      },
      "address"_a, "sizes"_a, "strides"_a, "itemsize"_a, "key"_a, "out"_a, "device"_a, "stream"_a,
      py::pos_only(), "Adds the multiset lanes of a strided tensor's elements.");
  module.def("compare_records", &cuda::compare_records, "numel"_a, "device"_a, py::pos_only(),
             "How many records `compare` writes.");
  module.def(
      "compare",
      [](u64 tag, u64 a, u64 b, u64 numel, u64 records, int device, u64 stream) {
        if (!cuda::compare(static_cast<Tag>(tag), a, b, numel, records, queue(device, stream))) {
          throw py::value_error("compare: no dtype with a distance of its own");
        }
      },
      "tag"_a, "a"_a, "b"_a, "numel"_a, "records"_a, "device"_a, "stream"_a, py::pos_only(),
      "Writes records for `_engine.ulp_merge` of two contiguous tensors of one dtype.");
}

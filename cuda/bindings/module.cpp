// `repro_audit._cuda`: launches of the kernels, on memory and streams given by address.
#include <cuda_runtime_api.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../../cpp/bindings/arguments.hpp"
#include "bindings.hpp"

namespace {

namespace py = pybind11;
using namespace repro_audit;
using namespace py::literals;
using bindings::strided;
using cuda::bindings::queue;

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() =
      "Kernels on a CUDA device's memory, given by address; see cpp/SPEC.md. Every launch is "
      "asynchronous on the stream given and adds to what is at `out`.";
  module.attr("RECORD_BYTES") = sizeof(Divergence);
  module.def("toolkit", [] { return CUDART_VERSION; }, "The CUDA compiled with: 13000 for 13.0.");
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
      [](const std::vector<std::pair<u64, u64>>& places, u64 key, u64 out, int device, u64 stream) {
        std::vector<cuda::Row> rows;
        rows.reserve(places.size());
        for (const auto& [address, nbytes] : places) {
          bindings::pointer(address, nbytes);
          rows.push_back({address, nbytes, 0});
        }
        cuda::add_table(std::move(rows), key, out, queue(device, stream));
      },
      "places"_a, "key"_a, "out"_a, "device"_a, "stream"_a, py::pos_only(),
      "Adds the lanes of tensors at (address, nbytes), two for each at `out`; one launch for 1,360 "
      "of them.");
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
  module.def(
      "sample",
      [](u64 address, const py::object& sizes, const py::object& strides, u64 itemsize, u64 count,
         u64 out, int device, u64 stream) {
        const Strided view = strided(address, sizes, strides, itemsize);
        if (count > view.numel()) throw py::value_error("count: more than there are elements");
        cuda::sample(view, count, out, queue(device, stream));
      },
      "address"_a, "sizes"_a, "strides"_a, "itemsize"_a, "count"_a, "out"_a, "device"_a, "stream"_a,
      py::pos_only(), "Copies `count` sampled elements of a tensor (SPEC.md, 11) to `out`.");
  module.def(
      "load",
      [](int device) {
        cuda::load_digests(device);
        cuda::load_samples(device);
      },
      "device"_a, py::pos_only(),
      "Loads the kernels of digests and samples on a device, so that none of their launches does.");
  cuda::bindings::register_tensors(module);
}

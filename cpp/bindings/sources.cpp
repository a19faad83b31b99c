// The sources of the CUDA kernels as bytes, for who launches kernels that CuPy compiled: the host's
// part of `_cuda`'s launches, which needs no CUDA.
#include "../../cuda/src/pieces.hpp"
#include "arguments.hpp"
#include "bindings.hpp"
#include "repro_audit/cuda/work.hpp"

namespace repro_audit::bindings {
namespace {

namespace py = pybind11;

template <int kBytes>
std::string name_of(const cuda::Contiguous<kBytes>&) {
  return "Contiguous<" + std::to_string(kBytes) + ">";
}

template <int kBytes>
std::string name_of(const cuda::Pieces<kBytes>&) {
  return "Pieces<" + std::to_string(kBytes) + ">";
}

// (name of its type, its bytes): what a kernel takes by value.
template <class Source>
py::tuple described(const Source& source) {
  return py::make_tuple(name_of(source),
                        py::bytes(reinterpret_cast<const char*>(&source), sizeof source));
}

py::tuple range_source(u64 address, u64 nbytes, u64 offset) {
  pointer(address, nbytes);
  py::tuple found;
  cuda::with_range(address, nbytes, offset, [&](auto source) { found = described(source); });
  return found;
}

py::tuple stream_source(u64 address, const py::object& sizes, const py::object& strides,
                        u64 itemsize, u64 limit) {
  const Strided view = simplified(strided(address, sizes, strides, itemsize));
  if (view.numel() == 0) throw py::value_error("a source of no bytes");
  py::tuple found;
  if (limit > itemsize && view.sizes.size() == 1 && view.strides[0] == 1) {
    return range_source(address, view.nbytes(), 0);
  }
  cuda::with_pieces(view, limit, [&](const auto& source) { found = described(source); });
  return found;
}

py::tuple multiset_source(u64 address, const py::object& sizes, const py::object& strides,
                          u64 itemsize) {
  const Strided view = strided(address, sizes, strides, itemsize);
  if (view.numel() == 0) throw py::value_error("a source of no bytes");
  py::tuple found;
  cuda::with_elements(view, [&](auto, const auto& source) { found = described(source); });
  return found;
}

}  // namespace

void register_sources(py::module_& module) {
  using namespace py::literals;
  py::dict launch;
  launch["threads"] = cuda::kThreads;
  launch["ulp_threads"] = cuda::kUlpThreads;
  launch["blockwise"] = cuda::kBlockwise;
  launch["threadwise"] = cuda::kThreadwise;
  launch["few_rows"] = cuda::kFewRows;
  launch["most_rows"] = cuda::kMostRows;
  launch["unit_bytes"] = cuda::kUnitBytes;
  launch["record_bytes"] = sizeof(Divergence);
  module.attr("LAUNCH") = launch;
  module.def("range_source", &range_source, "address"_a, "nbytes"_a, "offset"_a, py::pos_only(),
             "Type and bytes of the source of bytes that stand at `offset` of their stream.");
  module.def("stream_source", &stream_source, "address"_a, "sizes"_a, "strides"_a, "itemsize"_a,
             "limit"_a, py::pos_only(),
             "Type and bytes of the source of a strided tensor's stream, in pieces of at most "
             "`limit` bytes; one range where that is more than an element and it lies together.");
  module.def("multiset_source", &multiset_source, "address"_a, "sizes"_a, "strides"_a, "itemsize"_a,
             py::pos_only(),
             "Type and bytes of the source of a strided tensor's elements, in any order.");
}

}  // namespace repro_audit::bindings

// Digests of plain CUDA tensors, in one call each: what capture does at every op.
#include "../../cpp/bindings/arguments.hpp"
#include "../../cpp/bindings/plain.hpp"
#include "bindings.hpp"

namespace repro_audit::cuda::bindings {
namespace {

namespace py = pybind11;
using repro_audit::bindings::describe;
using repro_audit::bindings::Plain;

// Whether `t` is a plain tensor of that device, all of it inside its storage.
bool plain_of(PyObject* t, int device, Plain& plain) {
  namespace host = repro_audit::bindings;
  if (!describe(t, REPRO_AUDIT_DEVICE_TYPE, plain) || plain.tensor.device_id != device)
    return false;
  return plain.contiguous || host::ends_by(host::strided_of(plain), plain.end);
}

py::object taken(const Plain& plain) { return py::make_tuple(plain.nbytes, plain.tag); }

py::object add_tensor(const py::object& t, u64 out, int device, u64 stream) {
  Plain plain;
  if (!plain_of(t.ptr(), device, plain)) return py::none();
  if (plain.contiguous) {
    add_range(plain.address, plain.nbytes, 0, 0, out, queue(device, stream));
  } else {
    add_strided(repro_audit::bindings::strided_of(plain), 0, out, queue(device, stream));
  }
  return taken(plain);
}

py::list add_tensors(const py::list& tensors, u64 out, int device, u64 stream) {
  // A row of no bytes holds the place of what is not in the table.
  std::vector<Row> rows(tensors.size(), Row{0, 0, 0});
  py::list found(tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    Plain plain;
    found[i] = py::none();
    if (!plain_of(tensors[i].ptr(), device, plain)) continue;
    found[i] = taken(plain);
    if (plain.contiguous) {
      rows[i] = {plain.address, plain.nbytes, 0};
    } else {
      add_strided(repro_audit::bindings::strided_of(plain), 0, out + 16 * i, queue(device, stream));
    }
  }
  add_table(std::move(rows), 0, out, queue(device, stream));
  return found;
}

}  // namespace

void register_tensors(py::module_& module) {
  using namespace py::literals;
  module.def("exchange", &repro_audit::bindings::exchange, "capsule"_a, "tensor"_a, "parameter"_a,
             "storage"_a, py::pos_only(), "As `_engine.exchange`.");
  module.def("add_tensor", &add_tensor, "tensor"_a, "out"_a, "device"_a, "stream"_a, py::pos_only(),
             "Adds the lanes, key 0, of a plain tensor of the device; its (nbytes, tag), or None "
             "for any other tensor, and before `exchange`.");
  module.def("add_tensors", &add_tensors, "tensors"_a, "out"_a, "device"_a, "stream"_a,
             py::pos_only(),
             "As add_tensor for each of a list, two lanes for each at `out`: one launch for 1,360 "
             "that are contiguous.");
  module.def(
      "make_stream", [](int device) { return reinterpret_cast<u64>(make_stream(device)); },
      "device"_a, py::pos_only(),
      "A new stream of the device that does not wait for the default one; never destroyed.");
}

}  // namespace repro_audit::cuda::bindings

// As cpp/bindings/bindings.hpp, for `repro_audit._cuda`.
#pragma once

#include <pybind11/pybind11.h>

#include "../src/launch.hpp"

namespace repro_audit::cuda::bindings {

inline Queue queue(int device, u64 stream) { return {device, reinterpret_cast<void*>(stream)}; }

void register_tensors(pybind11::module_& module);

}  // namespace repro_audit::cuda::bindings

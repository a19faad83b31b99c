// As cpp/bindings/bindings.hpp, for `repro_audit._cuda`.
#pragma once

#include <pybind11/pybind11.h>

#include "../../cpp/bindings/dlpack.hpp"
#include "../src/launch.hpp"

// The type of the devices whose tensors are taken; another one where a device is emulated.
#ifndef REPRO_AUDIT_DEVICE_TYPE
#define REPRO_AUDIT_DEVICE_TYPE repro_audit::bindings::dlpack::kCuda
#endif

namespace repro_audit::cuda::bindings {

inline Queue queue(int device, u64 stream) { return {device, reinterpret_cast<void*>(stream)}; }

void register_tensors(pybind11::module_& module);

}  // namespace repro_audit::cuda::bindings

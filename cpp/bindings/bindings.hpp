// One `register_<topic>` a file; each validates, releases the GIL where it pays, decides nothing.
#pragma once

#include <pybind11/pybind11.h>

namespace repro_audit::bindings {

void register_digest(pybind11::module_& module);
void register_engines(pybind11::module_& module);
void register_exchange(pybind11::module_& module);
void register_sources(pybind11::module_& module);
void register_ulp(pybind11::module_& module);

}  // namespace repro_audit::bindings

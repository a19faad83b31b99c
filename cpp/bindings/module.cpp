#include "bindings.hpp"

PYBIND11_MODULE(_engine, module) {
  module.doc() = "Digests and ULP divergences of memory given by address; see cpp/SPEC.md.";
  repro_audit::bindings::register_engines(module);
  repro_audit::bindings::register_digest(module);
  repro_audit::bindings::register_exchange(module);
  repro_audit::bindings::register_sources(module);
  repro_audit::bindings::register_ulp(module);
}

#include <string>

#include "../src/dispatch.hpp"
#include "../src/parallel.hpp"
#include "bindings.hpp"

namespace repro_audit::bindings {
namespace {

namespace py = pybind11;

py::list engines() {
  py::list names;
  for (const Kernels* row : available()) names.append(row->name);
  return names;
}

// Those of the CPU's instruction sets that a kernel could be made for.
py::list cpu_features() {
  py::list names;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) names.append("avx2");
  if (__builtin_cpu_supports("avx512f")) names.append("avx512f");
  if (__builtin_cpu_supports("avx512bw")) names.append("avx512bw");
  if (__builtin_cpu_supports("avx512vl")) names.append("avx512vl");
  if (__builtin_cpu_supports("avx512cd")) names.append("avx512cd");
  if (__builtin_cpu_supports("avx512dq")) names.append("avx512dq");
#elif defined(__aarch64__)
  names.append("neon");
#endif
  return names;
}

}  // namespace

void register_engines(py::module_& module) {
  using namespace py::literals;
  module.attr("DIGEST_VERSION") = kDigestVersion;
  module.def("engines", &engines, "Names of the engines that this CPU can run, fastest first.");
  module.def("engine", [] { return active().name; }, "Name of the engine in use.");
  module.def(
      "select", [](const std::string& name) { return select(name); }, "name"_a, py::pos_only(),
      "Use the engine called `name` from now on; False where there is none such here.");
  module.def("cpu_features", &cpu_features, "The CPU's vector instruction sets that matter here.");
  module.def("usable_cpus", &usable_cpus, "CPUs that this process may run on.");
}

}  // namespace repro_audit::bindings

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "launch.hpp"

namespace repro_audit::cuda {

Versions versions() {
  Versions found{CUDART_VERSION, 0};
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (library == nullptr) return found;
  const auto ask = reinterpret_cast<int (*)(int*)>(dlsym(library, "cuDriverGetVersion"));
  if (ask == nullptr || ask(&found.driver) != 0) found.driver = 0;
  dlclose(library);
  return found;
}

}  // namespace repro_audit::cuda

// The emulated machine that the stand-in's kernels run on has as many devices.
#include "../emulated/machine.hpp"

namespace {

[[maybe_unused]] const bool two = [] {
  emulated::machine().multiprocessors = {4, 4};
  return true;
}();

}  // namespace

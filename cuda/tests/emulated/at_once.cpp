// In a module of Python's nobody waits for the emulated devices.
#include "machine.hpp"

namespace {

[[maybe_unused]] const bool at_once = emulated::machine().at_once = true;

}  // namespace

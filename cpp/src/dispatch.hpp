// Which row of the table is in use.
#pragma once

#include <string_view>
#include <vector>

#include "kernels.hpp"

namespace repro_audit {

// Rows that this CPU can run, the fastest first.
std::vector<const Kernels*> available();

// The row in use: the fastest, unless `select` said otherwise.
const Kernels& active();

// Uses the row called `name` from now on; false where this CPU or build does not have it.
bool select(std::string_view name);

}  // namespace repro_audit

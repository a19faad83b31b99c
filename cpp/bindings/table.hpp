// Digests of many streams by threads shared among them.
#pragma once

#include <vector>

#include "repro_audit/config.hpp"

namespace repro_audit::bindings {

struct Row {
  u64 address;
  u64 nbytes;
  u64 tag;
};

// The digests, key 0, in print order, 16 bytes each. Releases the GIL where there is much to do;
// throws ValueError for bytes at the null address.
std::vector<u8> digest_rows(const std::vector<Row>& rows, unsigned threads);

}  // namespace repro_audit::bindings

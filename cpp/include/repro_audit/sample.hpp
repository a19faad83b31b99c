// Which elements of a stream stand for the whole of it: SPEC.md, section 11.
#pragma once

#include "repro_audit/config.hpp"

namespace repro_audit {

// floor(i * numel / count), without a product of more than 64 bits; i < count <= numel.
REPRO_AUDIT_FN constexpr u64 sample_index(u64 i, u64 count, u64 numel) {
  const u64 step = numel / count;
  const u64 rest = numel % count;
  return i * step + i * rest / count;
}

}  // namespace repro_audit

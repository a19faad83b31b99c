// The multiset digest's arithmetic, SPEC.md section 7: blind to where an element stands.
#pragma once

#include "digest.hpp"

namespace repro_audit {

// Added to the dtype's tag, so that a multiset digest never equals a digest.
inline constexpr u64 kMultisetTag = 256;
inline constexpr u64 kMultisetSalt = 0x8CB92BA72F3D8DD7;

struct MultisetKeys {
  u32 a;
  u32 b;
  u32 kappa;

  REPRO_AUDIT_FN static constexpr MultisetKeys of(u64 key) {
    const u64 c = key_base(key) ^ kMultisetSalt;
    return {static_cast<u32>(mix(c) >> 32) | 0x80000001U,
            static_cast<u32>(mix(c + 1) >> 32) | 0x80000001U, static_cast<u32>(mix(c + 2) >> 32)};
  }
};

REPRO_AUDIT_FN constexpr u32 fold(u64 product) {
  return static_cast<u32>(product ^ (product >> 32));
}

// Absorbs the halves of one element, in order, into the lanes' sums.
struct MultisetElement {
  u32 y = 0;
  u32 z = 0;

  REPRO_AUDIT_FN constexpr void absorb(u32 lo, u32 hi, const MultisetKeys& keys, Lanes& sum) {
    lo ^= z;
    hi ^= y;
    y = hi ^ keys.kappa ^ fold(u64{lo} * keys.a);
    z = lo ^ fold(u64{y} * keys.b);
    sum.l0 += u64{z} * z;
    sum.l1 += u64{y} * z;
  }
};

}  // namespace repro_audit

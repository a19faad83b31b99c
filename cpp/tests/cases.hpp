// The known answers' form; vectors.cmake fills it.
#pragma once

#include "repro_audit/config.hpp"

struct RunCase {
  repro_audit::u64 key;
  repro_audit::u64 nbytes;
  repro_audit::u64 offset;
  repro_audit::u64 tag;  // 0: part of a stream, without a digest
  repro_audit::u64 l0;
  repro_audit::u64 l1;
  const char* digest;
};

struct TagCase {
  repro_audit::u64 tag;
  repro_audit::u64 itemsize;
  repro_audit::u64 nbytes;
  const char* digest;
  repro_audit::u64 m0;
  repro_audit::u64 m1;
  const char* multiset;
};

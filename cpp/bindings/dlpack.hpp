// What is needed of DLPack's binary interface, version 1: https://dmlc.github.io/dlpack/latest
#pragma once

#include "repro_audit/config.hpp"

namespace repro_audit::bindings::dlpack {

inline constexpr u32 kMajor = 1;
inline constexpr int kCpu = 1;
inline constexpr int kCuda = 2;
inline constexpr const char* kCapsule = "dlpack_exchange_api";

struct Tensor {
  void* data;
  int device_type;
  int device_id;
  int ndim;
  u8 code;  // of the dtype
  u8 bits;
  u16 lanes;
  const i64* shape;
  const i64* strides;  // in elements; null where it is contiguous
  u64 byte_offset;
};

// What the capsules of `__dlpack__` hold, by the names of theirs; the capsule's destructor frees it
// as long as the name stays.
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};
inline constexpr const char* kManaged = "dltensor";

struct Versioned {
  u32 major;
  u32 minor;
  void* context;
  void (*deleter)(Versioned*);
  u64 flags;
  Tensor tensor;
};
inline constexpr const char* kVersioned = "dltensor_versioned";

// The table of functions behind `__dlpack_c_exchange_api__`.
struct Exchange {
  u32 major;
  u32 minor;
  const void* previous;
  const void* allocate;
  const void* managed_from_object;
  const void* managed_to_object;
  // Describes an object of the type that the table was taken from, whose memory and shape it
  // borrows; 0, or -1 with a Python error set. May be null.
  int (*describe)(void* object, Tensor* tensor);
  const void* work_stream;
};

}  // namespace repro_audit::bindings::dlpack

// Number formats, SPEC.md sections 6 and 8: tags, ordered maps, exact values, rounding.
//
// Every operation is on integers, or exact, or a single conversion to nearest by IEEE hardware in
// its default mode; callers on a host where a program may flush denormals restore that mode first.
#pragma once

#include "config.hpp"

#if defined(__CUDA_ARCH__)
#define REPRO_AUDIT_AS_DOUBLE(u) __longlong_as_double(static_cast<long long>(u))
#define REPRO_AUDIT_DOUBLE_BITS(d) static_cast<u64>(__double_as_longlong(d))
#else
#define REPRO_AUDIT_AS_DOUBLE(u) __builtin_bit_cast(double, static_cast<u64>(u))
#define REPRO_AUDIT_DOUBLE_BITS(d) __builtin_bit_cast(u64, static_cast<double>(d))
#endif

namespace repro_audit {

// |d|, without the branch that compilers make of a comparison with zero.
REPRO_AUDIT_FN double without_sign(double d) {
  return REPRO_AUDIT_AS_DOUBLE(REPRO_AUDIT_DOUBLE_BITS(d) & 0x7FFFFFFFFFFFFFFF);
}

// The number that the bits of a float32 stand for. On a device in PTX's words: where all is
// compiled with -ftz=true, as CuPy does whatever it is told, a cast would make denormals 0. (Tests
// compile what is for a device by the host's compiler.)
REPRO_AUDIT_FN double widened(u32 bits) {
#if defined(__CUDA_ARCH__) && defined(__CUDACC__)
  double wide = 0;
  asm("cvt.f64.f32 %0, %1;" : "=d"(wide) : "f"(__uint_as_float(bits)));
  return wide;
#else
  return static_cast<double>(__builtin_bit_cast(float, bits));
#endif
}

// |x - y| of two integers, signed or not, given whether x is the smaller: modulo 2^64 their
// difference is right for both. Signs are random where tensors differ: a branch on them would be
// mispredicted every second time.
REPRO_AUDIT_FN constexpr u64 gap(u64 x, u64 y, bool smaller) {
  const u64 below = u64{0} - static_cast<u64>(smaller);
  return ((x - y) ^ below) - below;
}

enum class Tag : u32 {
  boolean = 1,
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  uint64,
  int64,
  float16,
  bfloat16,
  float32,
  float64,
  complex32,
  complex64,
  complex128,
  float8_e4m3fn,
  float8_e4m3fnuz,
  float8_e5m2,
  float8_e5m2fnuz,
  float8_e8m0fnu,
  float4_e2m1fn_x2,
};

// Which codes are not numbers.
enum class Special {
  ieee,  // largest exponent: infinity, then NaN
  fn,    // finite: all ones is NaN, no infinity
  fnuz,  // finite, unsigned zero: the sign bit alone is NaN, no infinity
};

// A sign, kExponent bits of exponent and kMantissa of fraction, from the top.
template <class BitsT, int kExponent, int kMantissa, int kBias, Special kSpecial>
struct Float {
  using Bits = BitsT;
  static constexpr bool kIsFloat = true;
  static constexpr Bits kSign = static_cast<Bits>(Bits{1} << (kExponent + kMantissa));
  static constexpr Bits kMagnitude = static_cast<Bits>(kSign - 1);
  static constexpr Bits kInfinity = static_cast<Bits>(((Bits{1} << kExponent) - 1) << kMantissa);

  REPRO_AUDIT_FN static constexpr bool is_nan(Bits b) {
    if constexpr (kSpecial == Special::ieee) return (b & kMagnitude) > kInfinity;
    if constexpr (kSpecial == Special::fn) return (b & kMagnitude) == kMagnitude;
    return b == kSign;
  }

  REPRO_AUDIT_FN static constexpr bool is_infinity(Bits b) {
    return kSpecial == Special::ieee && (b & kMagnitude) == kInfinity;
  }

  // The place of a number among all numbers of the format; both zeros are 0.
  REPRO_AUDIT_FN static constexpr i64 place(Bits b) {
    const u64 below = u64{0} - static_cast<u64>((b & kSign) != 0);
    return static_cast<i64>((static_cast<u64>(b & kMagnitude) ^ below) - below);
  }

  REPRO_AUDIT_FN static constexpr u64 distance(Bits a, Bits b) {
    return gap(static_cast<u64>(place(a)), static_cast<u64>(place(b)), less(a, b));
  }

  REPRO_AUDIT_FN static constexpr bool less(Bits a, Bits b) { return place(a) < place(b); }

  REPRO_AUDIT_FN static constexpr int sign(Bits b) {
    const i64 at = place(b);
    return static_cast<int>(at > 0) - static_cast<int>(at < 0);
  }

  REPRO_AUDIT_FN static double value(Bits b) {
    if constexpr (sizeof(Bits) == 8) {
      return REPRO_AUDIT_AS_DOUBLE(b);
    } else if constexpr (sizeof(Bits) == 4) {
      return widened(b);
    } else {
      const int exponent = static_cast<int>((b & kMagnitude) >> kMantissa);
      const u64 fraction = static_cast<u64>(b) & ((u64{1} << kMantissa) - 1);
      const u64 top = static_cast<u64>((b & kSign) != 0) << 63;
      if (is_nan(b)) return REPRO_AUDIT_AS_DOUBLE(top | 0x7FF8000000000000);
      if (is_infinity(b)) return REPRO_AUDIT_AS_DOUBLE(top | 0x7FF0000000000000);
      const u64 significand = exponent == 0 ? fraction : fraction | (u64{1} << kMantissa);
      const int power = (exponent == 0 ? 1 : exponent) - kBias - kMantissa;
      const double unit = REPRO_AUDIT_AS_DOUBLE(top | (static_cast<u64>(power + 1023) << 52));
      return static_cast<double>(significand) * unit;
    }
  }

  // The larger of |a| and |b|.
  REPRO_AUDIT_FN static double scale(Bits a, Bits b) {
    const Bits x = static_cast<Bits>(a & kMagnitude);
    const Bits y = static_cast<Bits>(b & kMagnitude);
    return value(x > y ? x : y);
  }

  REPRO_AUDIT_FN static double difference(Bits a, Bits b) {
    return without_sign(value(a) - value(b));
  }

  // The number of this format nearest to x, ties to even; what is too large becomes infinity, or
  // NaN where there is none. NaNs become one quiet NaN of either sign.
  REPRO_AUDIT_FN static Bits nearest(double x) {
    const u64 u = REPRO_AUDIT_DOUBLE_BITS(x);
    const u64 wide = u & 0x7FFFFFFFFFFFFFFF;
    const Bits top = (u >> 63) != 0 ? kSign : Bits{0};
    if (wide > 0x7FF0000000000000) return signed_code(quiet_nan(), top);
    if constexpr (sizeof(Bits) == 8) return u;
    const i64 exponent = static_cast<i64>(wide >> 52) - 1023;
    constexpr int kDrop = 52 - kMantissa;
    u64 code = 0;
    if (exponent >= 1 - kBias) {
      code = round_even(wide - (static_cast<u64>(1023 - kBias) << 52), kDrop);
    } else if (const i64 drop = kDrop + (1 - kBias) - exponent; drop < 55) {
      code = round_even((wide & 0xFFFFFFFFFFFFF) | (u64{1} << 52), static_cast<int>(drop));
    }
    if constexpr (kSpecial == Special::ieee) {
      return signed_code(code > kInfinity ? kInfinity : static_cast<Bits>(code), top);
    } else {
      constexpr u64 kLargest = kSpecial == Special::fn ? kMagnitude - 1 : kMagnitude;
      return signed_code(code > kLargest ? quiet_nan() : static_cast<Bits>(code), top);
    }
  }

 private:
  REPRO_AUDIT_FN static constexpr Bits quiet_nan() {
    if constexpr (kSpecial == Special::ieee) {
      return static_cast<Bits>(kInfinity | (Bits{1} << (kMantissa - 1)));
    }
    return kSpecial == Special::fn ? kMagnitude : kSign;
  }

  REPRO_AUDIT_FN static constexpr Bits signed_code(Bits code, Bits top) {
    if (kSpecial == Special::fnuz && (code == 0 || code == kSign)) return code;
    return static_cast<Bits>(code | top);
  }

  REPRO_AUDIT_FN static constexpr u64 round_even(u64 x, int drop) {
    const u64 kept = x >> drop;
    const u64 rest = x & ((u64{1} << drop) - 1);
    const u64 half = u64{1} << (drop - 1);
    return kept + static_cast<u64>(rest > half || (rest == half && (kept & 1) != 0));
  }
};

using Float64 = Float<u64, 11, 52, 1023, Special::ieee>;
using Float32 = Float<u32, 8, 23, 127, Special::ieee>;
using Float16 = Float<u16, 5, 10, 15, Special::ieee>;
using BFloat16 = Float<u16, 8, 7, 127, Special::ieee>;
using Float8E4M3FN = Float<u8, 4, 3, 7, Special::fn>;
using Float8E4M3FNUZ = Float<u8, 4, 3, 8, Special::fnuz>;
using Float8E5M2 = Float<u8, 5, 2, 15, Special::ieee>;
using Float8E5M2FNUZ = Float<u8, 5, 2, 16, Special::fnuz>;

// An exponent alone: 2^(code - 127); 255 is NaN. No zero, no sign.
struct Float8E8M0FNU {
  using Bits = u8;
  static constexpr bool kIsFloat = true;

  REPRO_AUDIT_FN static constexpr bool is_nan(Bits b) { return b == 255; }
  REPRO_AUDIT_FN static constexpr bool is_infinity(Bits) { return false; }
  REPRO_AUDIT_FN static constexpr u64 distance(Bits a, Bits b) {
    return static_cast<u64>(a > b ? a - b : b - a);
  }
  REPRO_AUDIT_FN static constexpr bool less(Bits a, Bits b) { return a < b; }
  REPRO_AUDIT_FN static constexpr int sign(Bits) { return 1; }
  REPRO_AUDIT_FN static double value(Bits b) {
    return REPRO_AUDIT_AS_DOUBLE(is_nan(b) ? 0x7FF8000000000000 : (u64{b} + 896) << 52);
  }
  REPRO_AUDIT_FN static double scale(Bits a, Bits b) { return value(a > b ? a : b); }
  REPRO_AUDIT_FN static double difference(Bits a, Bits b) {
    return without_sign(value(a) - value(b));
  }
};

// BitsT holds the number's bits, NumberT (of the same width) is how they are read.
template <class BitsT, class NumberT>
struct Integer {
  using Bits = BitsT;
  static constexpr bool kIsFloat = false;

  REPRO_AUDIT_FN static constexpr NumberT number(Bits b) { return static_cast<NumberT>(b); }
  REPRO_AUDIT_FN static constexpr bool is_nan(Bits) { return false; }
  REPRO_AUDIT_FN static constexpr bool is_infinity(Bits) { return false; }
  REPRO_AUDIT_FN static constexpr u64 distance(Bits a, Bits b) {
    return gap(static_cast<u64>(number(a)), static_cast<u64>(number(b)), less(a, b));
  }
  REPRO_AUDIT_FN static constexpr bool less(Bits a, Bits b) { return number(a) < number(b); }
  REPRO_AUDIT_FN static constexpr int sign(Bits b) {
    return static_cast<int>(number(b) > 0) - static_cast<int>(less(b, 0));
  }
  REPRO_AUDIT_FN static double value(Bits b) { return static_cast<double>(number(b)); }
  REPRO_AUDIT_FN static double scale(Bits a, Bits b) {
    const u64 x = distance(a, 0);
    const u64 y = distance(b, 0);
    return static_cast<double>(x > y ? x : y);
  }
  REPRO_AUDIT_FN static double difference(Bits a, Bits b) {
    return static_cast<double>(distance(a, b));
  }
};

// The format that numbers of a tag are compared in; none for complex numbers, which are compared as
// two parts, and for packed 4-bit ones, whose elements are no whole bytes.
template <Tag kTag>
struct FormatOf;
template <>
struct FormatOf<Tag::boolean> {
  using Type = Integer<u8, u8>;
};
template <>
struct FormatOf<Tag::uint8> {
  using Type = Integer<u8, u8>;
};
template <>
struct FormatOf<Tag::int8> {
  using Type = Integer<u8, signed char>;
};
template <>
struct FormatOf<Tag::uint16> {
  using Type = Integer<u16, u16>;
};
template <>
struct FormatOf<Tag::int16> {
  using Type = Integer<u16, short>;
};
template <>
struct FormatOf<Tag::uint32> {
  using Type = Integer<u32, u32>;
};
template <>
struct FormatOf<Tag::int32> {
  using Type = Integer<u32, int>;
};
template <>
struct FormatOf<Tag::uint64> {
  using Type = Integer<u64, u64>;
};
template <>
struct FormatOf<Tag::int64> {
  using Type = Integer<u64, i64>;
};
template <>
struct FormatOf<Tag::float16> {
  using Type = Float16;
};
template <>
struct FormatOf<Tag::bfloat16> {
  using Type = BFloat16;
};
template <>
struct FormatOf<Tag::float32> {
  using Type = Float32;
};
template <>
struct FormatOf<Tag::float64> {
  using Type = Float64;
};
template <>
struct FormatOf<Tag::float8_e4m3fn> {
  using Type = Float8E4M3FN;
};
template <>
struct FormatOf<Tag::float8_e4m3fnuz> {
  using Type = Float8E4M3FNUZ;
};
template <>
struct FormatOf<Tag::float8_e5m2> {
  using Type = Float8E5M2;
};
template <>
struct FormatOf<Tag::float8_e5m2fnuz> {
  using Type = Float8E5M2FNUZ;
};
template <>
struct FormatOf<Tag::float8_e8m0fnu> {
  using Type = Float8E8M0FNU;
};

#if !defined(__CUDACC_RTC__)
// Calls use(Format{}) with the format of `tag`; false for those that have none.
template <class Use>
bool with_format(Tag tag, Use&& use) {
  switch (tag) {
    case Tag::boolean: return use(FormatOf<Tag::boolean>::Type{}), true;
    case Tag::uint8: return use(FormatOf<Tag::uint8>::Type{}), true;
    case Tag::int8: return use(FormatOf<Tag::int8>::Type{}), true;
    case Tag::uint16: return use(FormatOf<Tag::uint16>::Type{}), true;
    case Tag::int16: return use(FormatOf<Tag::int16>::Type{}), true;
    case Tag::uint32: return use(FormatOf<Tag::uint32>::Type{}), true;
    case Tag::int32: return use(FormatOf<Tag::int32>::Type{}), true;
    case Tag::uint64: return use(FormatOf<Tag::uint64>::Type{}), true;
    case Tag::int64: return use(FormatOf<Tag::int64>::Type{}), true;
    case Tag::float16: return use(FormatOf<Tag::float16>::Type{}), true;
    case Tag::bfloat16: return use(FormatOf<Tag::bfloat16>::Type{}), true;
    case Tag::float32: return use(FormatOf<Tag::float32>::Type{}), true;
    case Tag::float64: return use(FormatOf<Tag::float64>::Type{}), true;
    case Tag::float8_e4m3fn: return use(FormatOf<Tag::float8_e4m3fn>::Type{}), true;
    case Tag::float8_e4m3fnuz: return use(FormatOf<Tag::float8_e4m3fnuz>::Type{}), true;
    case Tag::float8_e5m2: return use(FormatOf<Tag::float8_e5m2>::Type{}), true;
    case Tag::float8_e5m2fnuz: return use(FormatOf<Tag::float8_e5m2fnuz>::Type{}), true;
    case Tag::float8_e8m0fnu: return use(FormatOf<Tag::float8_e8m0fnu>::Type{}), true;
    case Tag::complex32:
    case Tag::complex64:
    case Tag::complex128:
    case Tag::float4_e2m1fn_x2: return false;
  }
  return false;
}
#endif

}  // namespace repro_audit

// What a thread that compares numbers sees of them: places of numbers in 32 bits where they fit,
// and bounds of their differences in float32, rounded to the safe side.
#pragma once

#include "repro_audit/ulp.hpp"

namespace repro_audit::cuda {

template <bool kWide>
struct Words {
  using Signed = int;
  using Unsigned = u32;
  using Real = float;
};
template <>
struct Words<true> {
  using Signed = i64;
  using Unsigned = u64;
  using Real = double;
};

// On a device in PTX's words: -ftz=true, which CuPy adds, would else flush denormals to 0, and
// with them what a bound rests on.
#if defined(__CUDA_ARCH__) && defined(__CUDACC__)

REPRO_AUDIT_FN float larger_size(float x, float y) {
  float size;
  asm("{.reg .f32 s, t; abs.f32 s, %1; abs.f32 t, %2; max.f32 %0, s, t;}"
      : "=f"(size)
      : "f"(x), "f"(y));
  return size;
}

// At least |x - y|; NaN where one is, or both are one infinity.
REPRO_AUDIT_FN float difference_above(float x, float y) {
  float size;
  asm("{.reg .f32 s, t; sub.rp.f32 s, %1, %2; sub.rm.f32 t, %1, %2; abs.f32 s, s; abs.f32 t, t; "
      "max.f32 %0, s, t;}"
      : "=f"(size)
      : "f"(x), "f"(y));
  return size;
}

// At most x * y, and d, which are not negative.
REPRO_AUDIT_FN float product_below(float x, float y) {
  float product;
  asm("mul.rz.f32 %0, %1, %2;" : "=f"(product) : "f"(x), "f"(y));
  return product;
}
REPRO_AUDIT_FN double product_below(double x, double y) {
  double product;
  asm("mul.rz.f64 %0, %1, %2;" : "=d"(product) : "d"(x), "d"(y));
  return product;
}
REPRO_AUDIT_FN float below(double d) {
  float bound;
  asm("cvt.rz.f32.f64 %0, %1;" : "=f"(bound) : "d"(d));
  return bound;
}

REPRO_AUDIT_FN float integer_above(u32 n) { return __uint2float_ru(n); }
REPRO_AUDIT_FN float integer_below(u32 n) { return __uint2float_rd(n); }

// Adds 1 where x < y, in two instructions: of an addition in C++ ptxas makes a sum and a choice.
REPRO_AUDIT_FN void count_less(int x, int y, u32& n) {
  asm("{.reg .pred p; setp.lt.s32 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(n) : "r"(x), "r"(y));
}
REPRO_AUDIT_FN void count_less(u32 x, u32 y, u32& n) {
  asm("{.reg .pred p; setp.lt.u32 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(n) : "r"(x), "r"(y));
}
REPRO_AUDIT_FN void count_less(i64 x, i64 y, u32& n) {
  asm("{.reg .pred p; setp.lt.s64 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(n) : "l"(x), "l"(y));
}
REPRO_AUDIT_FN void count_less(u64 x, u64 y, u32& n) {
  asm("{.reg .pred p; setp.lt.u64 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(n) : "l"(x), "l"(y));
}
REPRO_AUDIT_FN void count_unequal(u32 x, u32 y, u32& n) {
  asm("{.reg .pred p; setp.ne.u32 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(n) : "r"(x), "r"(y));
}
REPRO_AUDIT_FN void count_unequal(u64 x, u64 y, u32& n) {
  asm("{.reg .pred p; setp.ne.u64 p, %1, %2; @p add.u32 %0, %0, 1;}" : "+r"(n) : "l"(x), "l"(y));
}

// A number of 32 bits whose upper one says that the others are to be subtracted from 0.
REPRO_AUDIT_FN int signed_size(u32 bits) {
  int order;
  asm("{.reg .pred p; mov.b32 %0, %1; setp.lt.s32 p, %1, 0; @p sub.s32 %0, 0x80000000, %1;}"
      : "=&r"(order)
      : "r"(bits));
  return order;
}

// As histogram_bin, by the instruction that finds the place of the highest bit, or -1.
REPRO_AUDIT_FN int bin_of(u32 distance) {
  int place;
  asm("bfind.u32 %0, %1;" : "=r"(place) : "r"(distance));
  return place + 1;
}

// The number that a float16's bits stand for, times a power of two.
REPRO_AUDIT_FN float half_times(u32 bits, float power) {
  float x;
  asm("{.reg .f32 s; cvt.f32.f16 s, %1; mul.rn.f32 %0, s, %2;}"
      : "=f"(x)
      : "h"(static_cast<u16>(bits)), "f"(power));
  return x;
}

#else

REPRO_AUDIT_FN u32 code_of(float x) { return __builtin_bit_cast(u32, x); }
REPRO_AUDIT_FN float of_code(u32 code) { return __builtin_bit_cast(float, code); }

// Of what is not negative: the next float32 on one side, or it itself.
REPRO_AUDIT_FN float above(double d) {
  const float near = static_cast<float>(d);
  return static_cast<double>(near) < d ? of_code(code_of(near) + 1) : near;
}
REPRO_AUDIT_FN float below(double d) {
  const float near = static_cast<float>(d);
  const bool beyond = static_cast<double>(near) > d;
  return beyond ? of_code(code_of(near) - 1) : near;
}

REPRO_AUDIT_FN float larger_size(float x, float y) {
  x = of_code(code_of(x) & 0x7FFFFFFF);
  y = of_code(code_of(y) & 0x7FFFFFFF);
  return x > y ? x : y;
}
// Rounded twice, but as Format::difference is rounded first.
REPRO_AUDIT_FN float difference_above(float x, float y) {
  return above(without_sign(static_cast<double>(x) - static_cast<double>(y)));
}
REPRO_AUDIT_FN float product_below(float x, float y) {
  return below(static_cast<double>(x) * static_cast<double>(y));
}
REPRO_AUDIT_FN double product_below(double x, double y) {
  const u64 near = REPRO_AUDIT_DOUBLE_BITS(x * y);
  return REPRO_AUDIT_AS_DOUBLE(near == 0 ? 0 : near - 1);
}
REPRO_AUDIT_FN float integer_above(u32 n) { return above(n); }
REPRO_AUDIT_FN float integer_below(u32 n) { return below(n); }
template <class Number>
REPRO_AUDIT_FN void count_less(Number x, Number y, u32& n) {
  n += static_cast<u32>(x < y);
}
template <class Number>
REPRO_AUDIT_FN void count_unequal(Number x, Number y, u32& n) {
  n += static_cast<u32>(x != y);
}
REPRO_AUDIT_FN int signed_size(u32 bits) {
  const int size = static_cast<int>(bits & 0x7FFFFFFF);
  return (bits >> 31) != 0 ? -size : size;
}
REPRO_AUDIT_FN int bin_of(u32 distance) { return histogram_bin(distance); }
REPRO_AUDIT_FN float half_times(u32 bits, float power) {
  return static_cast<float>(Float16::value(static_cast<u16>(bits))) * power;
}

#endif

REPRO_AUDIT_FN u32 bits_of(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  return __builtin_bit_cast(u32, x);
#endif
}
REPRO_AUDIT_FN u64 bits_of(double x) { return REPRO_AUDIT_DOUBLE_BITS(x); }
// x <= y of what is not negative; false where x is NaN. In float32 by the codes: a comparison would
// be one of flushed denormals.
REPRO_AUDIT_FN bool at_most(float x, float y) { return bits_of(x) <= bits_of(y); }
REPRO_AUDIT_FN bool at_most(double x, double y) { return x <= y; }

REPRO_AUDIT_FN float as_real(u32 code) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(code);
#else
  return __builtin_bit_cast(float, code);
#endif
}
REPRO_AUDIT_FN double as_real(u64 code) { return REPRO_AUDIT_AS_DOUBLE(code); }

REPRO_AUDIT_FN int bin_of(u64 distance) { return histogram_bin(distance); }

// A format's numbers as a thread sees them. order(): ascends as they do, and its differences are
// their distances; difference_above() is at least Format::difference(), scale_below() at most
// Format::scale(). Of infinities and NaNs that `kMarked` says nothing of, difference_above() is
// infinity or NaN.
template <class Format>
struct Sight;

template <class BitsT, int kExponent, int kMantissa, int kBias, Special kSpecial>
struct Sight<Float<BitsT, kExponent, kMantissa, kBias, kSpecial>> {
  using Format = Float<BitsT, kExponent, kMantissa, kBias, kSpecial>;
  using Bits = BitsT;
  static constexpr bool kWide = sizeof(Bits) == 8;
  using Order = typename Words<kWide>::Signed;
  using Real = typename Words<kWide>::Real;
  // Whether NaNs are to be told by their codes.
  static constexpr bool kMarked = kSpecial != Special::ieee;

  REPRO_AUDIT_FN static Order order(Bits b) {
    if constexpr (sizeof(Bits) == 4) return signed_size(b);
    const Order size = static_cast<Order>(b & Format::kMagnitude);
    return (b & Format::kSign) != 0 ? -size : size;
  }

  REPRO_AUDIT_FN static Real real(Bits b) {
    if constexpr (kWide) {
      return Format::value(b);
    } else if constexpr (kExponent == 8) {
      return as_real(static_cast<u32>(b) << (23 - kMantissa));
    } else {
      // As a float16, whose fraction is no shorter; the largest numbers of float8_e5m2fnuz are
      // infinities there.
      constexpr int kTop = 15 - kExponent - kMantissa;
      const u32 half = (static_cast<u32>(b & Format::kSign) << kTop) |
                       (static_cast<u32>(b & Format::kMagnitude) << (10 - kMantissa));
      constexpr float kPower =
          kBias > 15 ? 0.5F : static_cast<float>(u32{1} << (kBias > 15 ? 0 : 15 - kBias));
      return half_times(half, kPower);
    }
  }

  REPRO_AUDIT_FN static Real difference_above(Bits a, Bits b) {
    if constexpr (kWide) {
      return Format::difference(a, b);
    } else {
      return cuda::difference_above(real(a), real(b));
    }
  }
  REPRO_AUDIT_FN static Real scale_below(Bits a, Bits b) {
    if constexpr (kWide) {
      return Format::scale(a, b);
    } else {
      return larger_size(real(a), real(b));
    }
  }

  // Of numbers: signs differ where they are farther from each other than both are from 0.
  template <class Distance>
  REPRO_AUDIT_FN static void count_flip(Bits a, Bits b, Distance distance, u32& n) {
    if constexpr (kMantissa == 23) {
      count_less(bits_of(larger_size(real(a), real(b))), distance, n);
    } else {
      const Distance x = static_cast<Distance>(a & Format::kMagnitude);
      const Distance y = static_cast<Distance>(b & Format::kMagnitude);
      count_less(x > y ? x : y, distance, n);
    }
  }
};

template <>
struct Sight<Float8E8M0FNU> {
  using Bits = u8;
  static constexpr bool kWide = false;
  using Order = int;
  using Real = float;
  static constexpr bool kMarked = false;

  REPRO_AUDIT_FN static Order order(Bits b) { return b; }
  REPRO_AUDIT_FN static Real real(Bits b) {
    return as_real(b == 0 ? u32{0x400000} : static_cast<u32>(b) << 23);
  }
  REPRO_AUDIT_FN static Real difference_above(Bits a, Bits b) {
    return cuda::difference_above(real(a), real(b));
  }
  REPRO_AUDIT_FN static Real scale_below(Bits a, Bits b) { return larger_size(real(a), real(b)); }
  REPRO_AUDIT_FN static void count_flip(Bits, Bits, u32, u32&) {}
};

template <class BitsT, class NumberT>
struct Sight<Integer<BitsT, NumberT>> {
  using Format = Integer<BitsT, NumberT>;
  using Bits = BitsT;
  static constexpr bool kWide = sizeof(Bits) == 8;
  static constexpr bool kSigned = static_cast<NumberT>(-1) < static_cast<NumberT>(1);
  template <bool kSign, class W>
  struct Choice {
    using Type = typename W::Signed;
  };
  template <class W>
  struct Choice<false, W> {
    using Type = typename W::Unsigned;
  };
  using Order = typename Choice<kSigned, Words<kWide>>::Type;
  using Distance = typename Words<kWide>::Unsigned;
  using Real = typename Words<kWide>::Real;
  static constexpr bool kMarked = false;

  REPRO_AUDIT_FN static Order order(Bits b) { return Format::number(b); }
  REPRO_AUDIT_FN static Real difference_above(Bits a, Bits b) {
    if constexpr (kWide) {
      return Format::difference(a, b);
    } else {
      return integer_above(static_cast<u32>(Format::distance(a, b)));
    }
  }
  REPRO_AUDIT_FN static Real scale_below(Bits a, Bits b) {
    if constexpr (kWide) {
      return Format::scale(a, b);
    } else {
      const u32 x = static_cast<u32>(Format::distance(a, 0));
      const u32 y = static_cast<u32>(Format::distance(b, 0));
      return integer_below(x > y ? x : y);
    }
  }
  REPRO_AUDIT_FN static void count_flip(Bits a, Bits b, Distance, u32& n) {
    if constexpr (kSigned) {
      const Order x = order(a);
      const Order y = order(b);
      n += static_cast<u32>((x < y ? x : y) < 0 && (x < y ? y : x) > 0);
    }
  }
};

}  // namespace repro_audit::cuda

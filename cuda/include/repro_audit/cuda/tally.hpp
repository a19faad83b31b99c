// What one thread finds of ULP divergence, in a third of the instructions of Figures::add: places
// of numbers in 32 bits where they fit, counters in 32 bits, and no float64 for a pair that a bound
// in float32 shows to raise no maximum.
//
// The figures are those of Figures::add to the bit: what is skipped here would change nothing.
#pragma once

#include "repro_audit/cuda/sight.hpp"

namespace repro_audit::cuda {

// The largest that any thread of some has told of, or less: no more than the maxima of all. They
// are told apart by their codes, which ascend as they do.
template <class Format>
struct Reached {
  using Code = typename Words<Sight<Format>::kWide>::Unsigned;
  using Real = typename Words<Sight<Format>::kWide>::Real;

  Code distance;
  Code absolute;
  Code relative;

  REPRO_AUDIT_FN void clear() { distance = absolute = relative = 0; }

  // Which of it other threads raise meanwhile.
  REPRO_AUDIT_FN Reached seen() const { return {peek(distance), peek(absolute), peek(relative)}; }

  REPRO_AUDIT_FN void tell_distance(Code d) { raise(distance, d); }
  REPRO_AUDIT_FN void tell_absolute(double d) { raise(absolute, code(d)); }
  REPRO_AUDIT_FN void tell_relative(double d) { raise(relative, code(d)); }

 private:
  // Finite: infinity times 0 is none.
  REPRO_AUDIT_FN static Code code(double d) {
    if (d > kLargestDouble) d = kLargestDouble;
    if constexpr (sizeof(Code) == 8) {
      return bits_of(d);
    } else {
      constexpr u32 kMost = 0x7F7FFFFF;
      const u32 bits = bits_of(below(d));
      return bits < kMost ? bits : kMost;
    }
  }

  REPRO_AUDIT_FN static Code peek(const Code& code) {
#if defined(__CUDA_ARCH__) && defined(__CUDACC__)
    return *static_cast<const volatile Code*>(&code);
#else
    return __atomic_load_n(&code, __ATOMIC_RELAXED);
#endif
  }

  REPRO_AUDIT_FN static void raise(Code& code, Code to) {
    if (to <= peek(code)) return;
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(Code) == 8) {
      atomicMax(reinterpret_cast<unsigned long long*>(&code), to);
    } else {
      atomicMax(&code, to);
    }
#else
    code = to;
#endif
  }
};

// Of pairs whose indices ascend, fewer than 2^32: a grid has as many threads as fill its device,
// thousands, and of that many pairs for each no device's memory holds the bytes. `figures` are all
// 0, and in a block's shared memory: what seldom changes takes no registers.
template <class Format>
class Tally {
 public:
  using Sees = Sight<Format>;
  using Bits = typename Format::Bits;
  using Order = typename Sees::Order;
  using Real = typename Sees::Real;
  using Distance = typename Words<Sees::kWide>::Unsigned;

  REPRO_AUDIT_FN Tally(Reached<Format>& reached, Figures& figures)
      : reached_(reached), figures_(figures) {}

  // True where a pair is of numbers and raises no maximum, or is equal; false where that is to be
  // looked at.
  REPRO_AUDIT_FN bool is_plain(Bits a, Bits b, const Reached<Format>& reached) const {
    if constexpr (Sees::kMarked) {
      if (Format::is_nan(a) || Format::is_nan(b)) return false;
    }
    const Real absolute = Sees::difference_above(a, b);
    // As large a distance as another thread's may be of a lesser index.
    const Distance known = reached.distance == 0 ? 0 : reached.distance - 1;
    const Real most = product_below(as_real(reached.relative), Sees::scale_below(a, b));
    return static_cast<int>(at_most(absolute, as_real(reached.absolute))) &
           static_cast<int>(at_most(absolute, most)) &
           static_cast<int>(distance(a, b) <= (known > max_ulp_ ? known : max_ulp_));
  }

  // Whether pairs can be plain: the first that differs has to be looked at.
  REPRO_AUDIT_FN bool begun() const { return differing_ != 0; }

  // A pair of numbers. Calls count_bin for equal ones as well, and not for NaNs: bin 0 is for
  // who has the figures to fill.
  template <class Count>
  REPRO_AUDIT_FN void count(Bits a, Bits b, Count&& count_bin) {
    const Distance gap = distance(a, b);
    count_bin(bin_of(gap));
    if constexpr (Sees::kWide) {
      count_unequal(a, b, differing_);
    } else {
      count_unequal(u32{a}, u32{b}, differing_);
    }
    count_less(Sees::order(a), Sees::order(b), less_);
    count_less(Sees::order(b), Sees::order(a), greater_);
    Sees::count_flip(a, b, gap, flips_);
    sum_lo_ += gap;
    if constexpr (Sees::kWide) sum_hi_ += static_cast<u64>(sum_lo_ < gap);
  }

  // Any pair that differs, with all that it may raise.
  template <class Count>
  REPRO_AUDIT_FN void look(u64 index, Bits a, Bits b, Count&& count_bin) {
    if (figures_.first_index == kNoIndex) {
      figures_.first_index = index;
      figures_.first_a = Format::value(a);
      figures_.first_b = Format::value(b);
    }
    if constexpr (Format::kIsFloat) {
      const bool nan_a = Format::is_nan(a);
      const bool nan_b = Format::is_nan(b);
      if (nan_a || nan_b) {
        ++differing_;
        ++(nan_a && nan_b ? figures_.nan_payload : figures_.unordered);
        return;
      }
      figures_.infinity += static_cast<u64>(Format::is_infinity(a) || Format::is_infinity(b));
    }
    count(a, b, count_bin);
    const Distance gap = distance(a, b);
    if (gap == 0) return;
    if (gap > max_ulp_) {
      max_ulp_ = gap;
      figures_.max_index = index;
      figures_.max_a = Format::value(a);
      figures_.max_b = Format::value(b);
      reached_.tell_distance(gap);
    }
    const double absolute = Format::difference(a, b);
    const double scale = Format::scale(a, b);
    if (absolute > figures_.max_absolute) {
      figures_.max_absolute = absolute;
      reached_.tell_absolute(absolute);
    }
    // Else the quotient is no larger, nor is what it is rounded to. Of infinities, the scale may be
    // one as well.
    if (absolute > kLargestDouble || !(absolute <= product_below(figures_.max_relative, scale))) {
      const double relative = relative_difference(absolute, scale);
      if (relative > figures_.max_relative) {
        figures_.max_relative = relative;
        reached_.tell_relative(relative);
      }
    }
  }

  // Writes to the figures what they lack.
  REPRO_AUDIT_FN void finish() {
    const u64 numbers = u64{less_} + greater_;
    figures_.differing = differing_;
    figures_.signed_zero = differing_ - figures_.unordered - figures_.nan_payload - numbers;
    figures_.sign_flips = flips_;
    figures_.less = less_;
    figures_.greater = greater_;
    figures_.max_ulp = max_ulp_;
    figures_.sum_lo = sum_lo_;
    figures_.sum_hi = sum_hi_;
  }

 private:
  REPRO_AUDIT_FN static Distance distance(Bits a, Bits b) {
    const Order x = Sees::order(a);
    const Order y = Sees::order(b);
    const Distance gap = static_cast<Distance>(x) - static_cast<Distance>(y);
    return x < y ? Distance{0} - gap : gap;
  }

  Reached<Format>& reached_;
  Figures& figures_;
  u32 differing_ = 0;
  u32 less_ = 0;
  u32 greater_ = 0;
  u32 flips_ = 0;
  Distance max_ulp_ = 0;
  // Of distances of 32 bits the sum is one of 64.
  u64 sum_lo_ = 0;
  u64 sum_hi_ = 0;
};

}  // namespace repro_audit::cuda

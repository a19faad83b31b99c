// ULP divergence, SPEC.md section 9: what two runs of numbers of one format differ by.
//
// Counts, sums and maxima of integers, exact float64 maxima and least indices: all of them
// commutative and associative, so any split over threads or blocks gives the same bits.
#pragma once

#include "dtype.hpp"

namespace repro_audit {

inline constexpr int kHistogramBins = 65;
inline constexpr u64 kNoIndex = ~u64{0};

// Bin 0 is distance 0; bin i > 0 holds distances of i bits.
REPRO_AUDIT_FN int histogram_bin(u64 distance) {
#if defined(__CUDA_ARCH__)
  return 64 - __clzll(static_cast<long long>(distance));
#else
  return distance == 0 ? 0 : 64 - __builtin_clzll(distance);
#endif
}

// The largest float64.
inline constexpr double kLargestDouble = 1.7976931348623157e308;

// |a - b| in proportion to the larger of |a| and |b|. An infinite difference is infinite in
// proportion too: infinity / infinity would be NaN.
REPRO_AUDIT_FN double relative_difference(double absolute, double scale) {
  return absolute <= kLargestDouble ? absolute / scale : absolute;
}

// All but the histogram.
struct Figures {
  u64 numel = 0;
  u64 differing = 0;
  u64 unordered = 0;
  u64 nan_payload = 0;
  u64 signed_zero = 0;
  u64 infinity = 0;
  u64 sign_flips = 0;
  u64 less = 0;
  u64 greater = 0;
  u64 max_ulp = 0;
  u64 max_index = kNoIndex;  // the least that has max_ulp; kNoIndex where max_ulp is 0
  double max_a = 0;
  double max_b = 0;
  u64 first_index = kNoIndex;
  double first_a = 0;
  double first_b = 0;
  u64 sum_lo = 0;
  u64 sum_hi = 0;
  double max_absolute = 0;
  double max_relative = 0;

  REPRO_AUDIT_FN void add_sum(u64 lo, u64 hi) {
    sum_lo += lo;
    sum_hi += hi + static_cast<u64>(sum_lo < lo);
  }

  // Takes the pair at `index`, whose bits differ, and calls count(bin) where it is of a bin of the
  // histogram. The histogram's and numel's share of the pairs whose bits agree is for the caller:
  // it knows them by the block.
  template <class Format, class Count>
  REPRO_AUDIT_FN void add(u64 index, typename Format::Bits a, typename Format::Bits b,
                          Count&& count) {
    ++differing;
    if (index < first_index) {
      first_index = index;
      first_a = Format::value(a);
      first_b = Format::value(b);
    }
    if constexpr (Format::kIsFloat) {
      const bool nan_a = Format::is_nan(a);
      const bool nan_b = Format::is_nan(b);
      if (nan_a || nan_b) {
        if (nan_a && nan_b) {
          ++nan_payload;
          count(0);
        } else {
          ++unordered;
        }
        return;
      }
    }
    const u64 distance = Format::distance(a, b);
    count(histogram_bin(distance));
    if (distance == 0) {
      ++signed_zero;
      return;
    }
    add_sum(distance, 0);
    infinity += static_cast<u64>(Format::is_infinity(a) || Format::is_infinity(b));
    sign_flips += static_cast<u64>(Format::sign(a) * Format::sign(b) < 0);
    const bool below = Format::less(a, b);
    less += static_cast<u64>(below);
    greater += static_cast<u64>(!below);
    if (distance > max_ulp || (distance == max_ulp && index < max_index)) {
      max_ulp = distance;
      max_index = index;
      max_a = Format::value(a);
      max_b = Format::value(b);
    }
    const double absolute = Format::difference(a, b);
    const double relative = relative_difference(absolute, Format::scale(a, b));
    if (absolute > max_absolute) max_absolute = absolute;
    if (relative > max_relative) max_relative = relative;
  }

  REPRO_AUDIT_FN void merge(const Figures& other) {
    numel += other.numel;
    differing += other.differing;
    unordered += other.unordered;
    nan_payload += other.nan_payload;
    signed_zero += other.signed_zero;
    infinity += other.infinity;
    sign_flips += other.sign_flips;
    less += other.less;
    greater += other.greater;
    if (other.max_ulp > max_ulp || (other.max_ulp == max_ulp && other.max_index < max_index)) {
      max_ulp = other.max_ulp;
      max_index = other.max_index;
      max_a = other.max_a;
      max_b = other.max_b;
    }
    if (other.first_index < first_index) {
      first_index = other.first_index;
      first_a = other.first_a;
      first_b = other.first_b;
    }
    add_sum(other.sum_lo, other.sum_hi);
    if (other.max_absolute > max_absolute) max_absolute = other.max_absolute;
    if (other.max_relative > max_relative) max_relative = other.max_relative;
  }
};

struct Divergence : Figures {
  u64 histogram[kHistogramBins] = {};

  // As Figures::add, into this histogram.
  template <class Format>
  REPRO_AUDIT_FN void add(u64 index, typename Format::Bits a, typename Format::Bits b) {
    Figures::add<Format>(index, a, b, [this](int bin) { ++histogram[bin]; });
  }

  REPRO_AUDIT_FN void merge(const Divergence& other) {
    Figures::merge(other);
    for (int i = 0; i < kHistogramBins; ++i) histogram[i] += other.histogram[i];
  }
};

}  // namespace repro_audit

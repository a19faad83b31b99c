// ULP divergence with AVX-512, SPEC.md section 9: sixteen pairs of float32, float16 or bfloat16 at
// a time. Compiled like avx512.cpp; the caller has set the float environment (float_mode.hpp).
//
// Finite numbers that differ by at least one place go through vectors; the rest (NaN, infinity,
// zeros of two signs) through the scalar definition, one by one. Counts and sums are integers and
// maxima exact, so the lanes' order is of no account; least indices hold because pairs are taken
// in ascending order and a maximum moves only when it grows.
#include <cstring>
#include <initializer_list>

#include "avx512.hpp"

namespace repro_audit {
namespace {

// Pairs between two emptyings of the sums: 2^24 distances below 2^32 stay below 2^56, and their
// counts below 2^32.
constexpr u64 kRun = u64{1} << 24;

template <class Format>
struct Vector;

template <>
struct Vector<Float32> {
  [[gnu::always_inline]] static inline __m512i load(const u8* p, __mmask16 present) {
    return _mm512_maskz_loadu_epi32(present, p);
  }
  [[gnu::always_inline]] static inline __m512 value(__m512i bits) {
    return _mm512_castsi512_ps(bits);
  }
};

template <>
struct Vector<BFloat16> {
  [[gnu::always_inline]] static inline __m512i load(const u8* p, __mmask16 present) {
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(present, p));
  }
  [[gnu::always_inline]] static inline __m512 value(__m512i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  }
};

template <>
struct Vector<Float16> {
  [[gnu::always_inline]] static inline __m512i load(const u8* p, __mmask16 present) {
    return Vector<BFloat16>::load(p, present);
  }
  [[gnu::always_inline]] static inline __m512 value(__m512i bits) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(bits));
  }
};

// The two halves of sixteen float32 as float64: exact.
struct Doubles {
  __m512d low, high;

  [[gnu::always_inline]] static inline Doubles of(__m512 x) {
    return {_mm512_cvtps_pd(_mm512_castps512_ps256(x)),
            _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)))};
  }
};

// How many of many vectors of 32-bit numbers have their highest set bit at 0, 1, ... 31: the
// histogram by power of two. A number's highest bit alone is a vector of 512 counters of one bit;
// carry-save adders (two instructions for three vectors) add sixteen of those to four digits and a
// carry, and sixteen carries to four more, so that single counters are read once in 4,096 numbers.
// The positional population count of Klarqvist, Mula and Lemire (2021), "Efficient Computation of
// Positional Population Counts Using SIMD Instructions", with a second level.
class TopBits {
 public:
  [[gnu::always_inline]] inline void add(__m512i numbers) {
    // No bit of 0: a shift by 31 - 32 leaves nothing.
    const __m512i at = _mm512_sub_epi32(_mm512_set1_epi32(31), _mm512_lzcnt_epi32(numbers));
    low_.pending[low_.count] = _mm512_sllv_epi32(_mm512_set1_epi32(1), at);
    if (++low_.count == 16) carry();
  }

  // Adds the counts of bits 0 ... 31 to bins 1 ... 32.
  void finish(u64* histogram) {
    while (low_.count != 0) add(_mm512_setzero_si512());
    while (high_.count != 0) {
      high_.pending[high_.count] = _mm512_setzero_si512();
      if (++high_.count == 16) spill(high_.sixteen());
    }
    u64 weight = 1;
    for (const Adder* adder : {&low_, &high_}) {
      for (const __m512i& digit : adder->digit) {
        read(digit, weight);
        weight *= 2;
      }
    }
    for (int bit = 0; bit < 32; ++bit) histogram[bit + 1] += counts_[bit];
  }

 private:
  struct Adder {
    __m512i digit[4] = {};
    __m512i pending[16];
    unsigned count = 0;

    // Adds a and b to digit `at`; what is carried.
    [[gnu::always_inline]] inline __m512i sum(int at, __m512i a, __m512i b) {
      const __m512i majority = _mm512_ternarylogic_epi32(digit[at], a, b, 0xE8);
      digit[at] = _mm512_ternarylogic_epi32(digit[at], a, b, 0x96);
      return majority;
    }
    [[gnu::always_inline]] inline __m512i two(const __m512i* v) { return sum(0, v[0], v[1]); }
    [[gnu::always_inline]] inline __m512i four(const __m512i* v) {
      const __m512i first = two(v);
      return sum(1, first, two(v + 2));
    }
    [[gnu::always_inline]] inline __m512i eight(const __m512i* v) {
      const __m512i first = four(v);
      return sum(2, first, four(v + 4));
    }
    __m512i sixteen() {
      count = 0;
      const __m512i first = eight(pending);
      return sum(3, first, eight(pending + 8));
    }
  };

  [[gnu::noinline]] void carry() {
    high_.pending[high_.count] = low_.sixteen();
    if (++high_.count == 16) spill(high_.sixteen());
  }

  void spill(__m512i carried) { read(carried, 256); }

  void read(__m512i bits, u64 weight) {
    if (_mm512_test_epi32_mask(bits, bits) == 0) return;
    for (int bit = 0; bit < 32; ++bit) {
      const __mmask16 set =
          _mm512_test_epi32_mask(bits, _mm512_set1_epi32(static_cast<int>(1U << bit)));
      counts_[bit] += weight * static_cast<u64>(__builtin_popcount(set));
    }
  }

  Adder low_;
  Adder high_;
  u64 counts_[32] = {};
};

template <class Format>
class Pairs {
 public:
  explicit Pairs(Divergence& result)
      : result_(result), largest_(_mm512_set1_epi32(static_cast<int>(result.max_ulp))) {
    set_bounds();
  }

  [[gnu::always_inline]] inline void take(const u8* pa, const u8* pb, u64 first,
                                          __mmask16 present) {
    const __m512i a = Vector<Format>::load(pa, present);
    const __m512i b = Vector<Format>::load(pb, present);
    __mmask16 differing = _mm512_cmpneq_epi32_mask(a, b);
    if (differing == 0) return;
    if (result_.first_index == kNoIndex) {
      const u64 lane = static_cast<u64>(__builtin_ctz(differing));
      result_.first_index = first + lane;
      result_.first_a = Format::value(at(pa, lane));
      result_.first_b = Format::value(at(pb, lane));
    }
    const __m512i magnitude = _mm512_set1_epi32(static_cast<int>(Format::kMagnitude));
    const __m512i infinity = _mm512_set1_epi32(static_cast<int>(Format::kInfinity));
    const __m512i ma = _mm512_and_si512(a, magnitude);
    const __m512i mb = _mm512_and_si512(b, magnitude);
    const __mmask16 zero = _mm512_testn_epi32_mask(ma, ma) & _mm512_testn_epi32_mask(mb, mb);
    const __mmask16 odd =
        (zero | _mm512_cmpge_epi32_mask(_mm512_max_epi32(ma, mb), infinity)) & differing;
    if (odd != 0) {
      one_by_one(pa, pb, first, odd);
      differing = static_cast<__mmask16>(differing & ~odd);
      if (differing == 0) return;
    }
    const __mmask16 below_a = _mm512_cmpneq_epi32_mask(a, ma);
    const __mmask16 below_b = _mm512_cmpneq_epi32_mask(b, mb);
    const __m512i none = _mm512_setzero_si512();
    const __m512i place_a = _mm512_mask_sub_epi32(ma, below_a, none, ma);
    const __m512i place_b = _mm512_mask_sub_epi32(mb, below_b, none, mb);
    const __mmask16 less = _mm512_mask_cmplt_epi32_mask(differing, place_a, place_b);
    const __mmask16 flips = static_cast<__mmask16>((below_a ^ below_b) & differing) &
                            _mm512_test_epi32_mask(ma, ma) & _mm512_test_epi32_mask(mb, mb);
    const __m512i distance = _mm512_maskz_sub_epi32(differing, _mm512_max_epi32(place_a, place_b),
                                                    _mm512_min_epi32(place_a, place_b));
    differing_ += count(differing);
    less_ += count(less);
    flips_ += count(flips);
    sum_ = _mm512_add_epi64(sum_, _mm512_and_si512(distance, _mm512_set1_epi64(0xFFFFFFFF)));
    sum_ = _mm512_add_epi64(sum_, _mm512_srli_epi64(distance, 32));

    bits_.add(distance);
    if (_mm512_cmpgt_epu32_mask(distance, largest_) != 0) grow(pa, pb, first, distance);
    floats(Vector<Format>::value(a), Vector<Format>::value(b), differing);
  }

  void finish() {
    result_.differing += differing_;
    result_.less += less_;
    result_.greater += differing_ - less_;
    result_.sign_flips += flips_;
    result_.add_sum(total_of(sum_), 0);
    bits_.finish(result_.histogram);
  }

 private:
  using Bits = typename Format::Bits;

  [[gnu::always_inline]] static inline u64 count(__mmask16 mask) {
    return static_cast<u64>(__builtin_popcount(mask));
  }

  static Bits at(const u8* p, u64 lane) {
    Bits bits;
    std::memcpy(&bits, p + lane * sizeof bits, sizeof bits);
    return bits;
  }

  [[gnu::noinline]] void one_by_one(const u8* pa, const u8* pb, u64 first, unsigned lanes) {
    for (; lanes != 0; lanes &= lanes - 1) {
      const u64 lane = static_cast<u64>(__builtin_ctz(lanes));
      result_.add<Format>(first + lane, at(pa, lane), at(pb, lane));
    }
    // Where the largest is of this vector, an equal one in a lane before it is still to come.
    const bool tied = result_.max_ulp != 0 && result_.max_index >= first;
    largest_ = _mm512_set1_epi32(static_cast<int>(result_.max_ulp - (tied ? 1 : 0)));
    set_bounds();
  }

  [[gnu::noinline]] void grow(const u8* pa, const u8* pb, u64 first, __m512i distance) {
    const u32 most = _mm512_reduce_max_epu32(distance);
    largest_ = _mm512_set1_epi32(static_cast<int>(most));
    const u64 lane = static_cast<u64>(__builtin_ctz(_mm512_cmpeq_epi32_mask(distance, largest_)));
    if (most == result_.max_ulp && first + lane > result_.max_index) return;
    result_.max_ulp = most;
    result_.max_index = first + lane;
    result_.max_a = Format::value(at(pa, lane));
    result_.max_b = Format::value(at(pb, lane));
  }

  // The float64 figures can grow only where these float32 ones come within 2^-20 of the largest so
  // far, far more than their rounding; the rest need no float64. Below the least normal number a
  // bound is off by less than the step between numbers, hence "not less" and not "greater".
  [[gnu::always_inline]] inline void floats(__m512 a, __m512 b, __mmask16 differing) {
    const __m512 gap = _mm512_abs_ps(_mm512_sub_ps(a, b));
    const __m512 scale = _mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b));
    const __mmask16 exceeds =
        _mm512_mask_cmp_ps_mask(differing, gap, absolute_bound_, _CMP_GE_OQ) |
        _mm512_mask_cmp_ps_mask(differing, gap, _mm512_mul_ps(relative_bound_, scale), _CMP_GE_OQ);
    if (exceeds != 0) exact(a, b, scale, exceeds);
  }

  [[gnu::noinline]] void exact(__m512 a, __m512 b, __m512 scales, __mmask16 lanes) {
    const Doubles x = Doubles::of(a);
    const Doubles y = Doubles::of(b);
    const Doubles scale = Doubles::of(scales);
    const __mmask8 here = static_cast<__mmask8>(lanes);
    const __mmask8 there = static_cast<__mmask8>(lanes >> 8);
    const __m512d low = _mm512_abs_pd(_mm512_maskz_sub_pd(here, x.low, y.low));
    const __m512d high = _mm512_abs_pd(_mm512_maskz_sub_pd(there, x.high, y.high));
    const double absolute = _mm512_reduce_max_pd(_mm512_max_pd(low, high));
    const double relative = _mm512_reduce_max_pd(_mm512_max_pd(
        _mm512_maskz_div_pd(here, low, scale.low), _mm512_maskz_div_pd(there, high, scale.high)));
    if (absolute > result_.max_absolute) result_.max_absolute = absolute;
    if (relative > result_.max_relative) result_.max_relative = relative;
    set_bounds();
  }

  // Beyond float32 infinity, where a cast in C++ would be undefined.
  static __m512 bound(double x) {
    return _mm512_broadcastss_ps(_mm_cvtsd_ss(_mm_setzero_ps(), _mm_set_sd(x)));
  }

  void set_bounds() {
    constexpr double kBelow = 1 - 0x1p-20;
    absolute_bound_ = bound(result_.max_absolute * kBelow);
    relative_bound_ = bound(result_.max_relative * kBelow);
  }

  Divergence& result_;
  __m512i largest_;
  __m512i sum_ = _mm512_setzero_si512();
  __m512 absolute_bound_;
  __m512 relative_bound_;
  u64 differing_ = 0;
  u64 less_ = 0;
  u64 flips_ = 0;
  TopBits bits_;
};

template <class Format>
u64 divergence_of(const u8* a, const u8* b, u64 first, u64 count, Divergence& result) {
  constexpr u64 kItem = sizeof(typename Format::Bits);
  for (u64 done = 0; done < count;) {
    const u64 end = count - done < kRun ? count : done + kRun;
    Pairs<Format> pairs(result);
    for (; done + 16 <= end; done += 16) {
      pairs.take(a + done * kItem, b + done * kItem, first + done, 0xFFFF);
    }
    if (done < end) {
      const __mmask16 present = static_cast<__mmask16>((1U << (end - done)) - 1);
      pairs.take(a + done * kItem, b + done * kItem, first + done, present);
      done = end;
    }
    pairs.finish();
  }
  return count;
}

}  // namespace

u64 avx512_divergence(Tag tag, const u8* a, const u8* b, u64 first, u64 count, Divergence& result) {
  switch (tag) {
    case Tag::float32: return divergence_of<Float32>(a, b, first, count, result);
    case Tag::float16: return divergence_of<Float16>(a, b, first, count, result);
    case Tag::bfloat16: return divergence_of<BFloat16>(a, b, first, count, result);
    default: return 0;
  }
}

}  // namespace repro_audit

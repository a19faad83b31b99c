#include "divergence.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "float_mode.hpp"
#include "parallel.hpp"

namespace repro_audit {
namespace {

// Elements gathered, or rounded, at a time: both sides stay in L1.
constexpr u64 kChunk = 1024;

// Once a difference was met, this many bytes go element by element before equality is tried again.
constexpr u64 kCloseLook = 256;

bool contiguous(const Strided& view) { return view.sizes.size() == 1 && view.strides[0] == 1; }

// With vectors the look may be longer: equal pairs cost them little.
constexpr u64 kVectorLook = 32768;

template <class Format>
void compare_run(const Kernels& kernels, Tag tag, const u8* a, const u8* b, u64 first, u64 count,
                 Divergence& result) {
  using Bits = typename Format::Bits;
  u64 i = 0;
  while (i < count) {
    const u64 at = i * sizeof(Bits);
    i += kernels.equal_prefix(a + at, b + at, (count - i) * sizeof(Bits)) / sizeof(Bits);
    if (kernels.divergence != nullptr) {
      const u64 look = std::min(count - i, kVectorLook / sizeof(Bits));
      const u64 offset = i * sizeof(Bits);
      const u64 taken = kernels.divergence(tag, a + offset, b + offset, first + i, look, result);
      i += taken;
      if (taken != 0) continue;
    }
    const u64 end = std::min(count, i + kCloseLook / sizeof(Bits));
    for (; i < end; ++i) {
      Bits x;
      Bits y;
      std::memcpy(&x, a + i * sizeof(Bits), sizeof(Bits));
      std::memcpy(&y, b + i * sizeof(Bits), sizeof(Bits));
      if (x != y) result.add<Format>(first + i, x, y);
    }
  }
}

// Where a view's elements first ... first + count - 1 are, one after another.
const u8* in_order(const Strided& view, u64 first, u64 count, u8* buffer) {
  if (contiguous(view)) return view.data + first * view.itemsize;
  gather(view, first, count, buffer);
  return buffer;
}

template <class Wide, class Narrow>
void round_run(const u8* from, u64 count, u8* to) {
  for (u64 i = 0; i < count; ++i) {
    typename Wide::Bits bits;
    std::memcpy(&bits, from + i * sizeof bits, sizeof bits);
    const typename Narrow::Bits rounded = Narrow::nearest(Wide::value(bits));
    std::memcpy(to + i * sizeof rounded, &rounded, sizeof rounded);
  }
}

template <class Narrow>
using Rounding = void (*)(const u8*, u64, u8*);

// Calls consume(x, y, first, count) for the pairs `from` ... `to - 1`, in order, each call's pairs
// one after another in memory and of one format.
template <class Format, class Consume>
void for_each_chunk(const Strided& a, const Strided& b, u64 from, u64 to, Rounding<Format> rounding,
                    Consume&& consume) {
  if (contiguous(a) && contiguous(b) && rounding == nullptr) {
    consume(a.data + from * a.itemsize, b.data + from * b.itemsize, from, to - from);
    return;
  }
  alignas(64) u8 buffer_a[kChunk * 8];
  alignas(64) u8 buffer_b[kChunk * 8];
  alignas(64) u8 rounded[kChunk * 8];
  for (u64 first = from; first < to; first += kChunk) {
    const u64 count = std::min(kChunk, to - first);
    const u8* x = in_order(a, first, count, buffer_a);
    const u8* y = in_order(b, first, count, buffer_b);
    if (rounding != nullptr) {
      rounding(x, count, rounded);
      x = rounded;
    }
    consume(x, y, first, count);
  }
}

template <class Format>
Divergence compare_share(const Kernels& kernels, Tag tag, const Strided& a, const Strided& b,
                         u64 from, u64 to, Rounding<Format> rounding) {
  Divergence result;
  for_each_chunk<Format>(a, b, from, to, rounding,
                         [&](const u8* x, const u8* y, u64 first, u64 count) {
                           compare_run<Format>(kernels, tag, x, y, first, count, result);
                         });
  result.numel = to - from;
  result.histogram[0] += result.numel - result.differing;
  return result;
}

template <class Format>
void channels_run(const Kernels& kernels, const u8* a, const u8* b, u64 first, u64 count, u64 inner,
                  std::vector<Channel>& channels) {
  using Bits = typename Format::Bits;
  for (u64 i = 0; i < count;) {
    const u64 at = i * sizeof(Bits);
    i += kernels.equal_prefix(a + at, b + at, (count - i) * sizeof(Bits)) / sizeof(Bits);
    const u64 end = std::min(count, i + kCloseLook / sizeof(Bits));
    for (; i < end; ++i) {
      Bits x;
      Bits y;
      std::memcpy(&x, a + i * sizeof(Bits), sizeof(Bits));
      std::memcpy(&y, b + i * sizeof(Bits), sizeof(Bits));
      if (x == y) continue;
      Channel& channel = channels[(first + i) / inner % channels.size()];
      ++channel.differing;
      const bool nan_x = Format::is_nan(x);
      const bool nan_y = Format::is_nan(y);
      if (nan_x || nan_y) {
        channel.unordered += static_cast<u64>(nan_x != nan_y);
        continue;
      }
      channel.max_ulp = std::max(channel.max_ulp, Format::distance(x, y));
    }
  }
}

// How to round numbers of dtype `wide` to Narrow; null where these are not two such formats.
template <class Narrow>
Rounding<Narrow> rounding_of(Tag wide) {
  Rounding<Narrow> rounding = nullptr;
  with_format(wide, [&](auto format) {
    using Wide = decltype(format);
    constexpr bool kSigned = !std::is_same_v<Wide, Float8E8M0FNU>;
    if constexpr (Wide::kIsFloat && kSigned) rounding = &round_run<Wide, Narrow>;
  });
  return rounding;
}

// One answer a thread: work(from, to, answer) for shares of the view's elements, each answer
// beginning as `empty`.
template <class Answer, class Work>
std::vector<Answer> shared(const Strided& view, unsigned threads, const Answer& empty,
                           Work&& work) {
  const u64 numel = view.numel();
  const unsigned parts = worth_threads(view.nbytes(), threads);
  const u64 step = (numel + parts - 1) / parts;
  std::vector<Answer> answers(parts, empty);
  run_parallel(parts, [&](unsigned part) {
    const FloatMode mode;
    const u64 from = std::min(numel, part * step);
    work(from, std::min(numel, from + step), answers[part]);
  });
  return answers;
}

// Calls use(Format{}, rounding) with the format that both dtypes are compared in; false where there
// is none.
template <class Use>
bool with_common_format(Tag tag_a, Tag tag_b, Use&& use) {
  bool comparable = true;
  const bool known = with_format(tag_b, [&](auto format) {
    using Format = decltype(format);
    Rounding<Format> rounding = nullptr;
    if (tag_a != tag_b) {
      constexpr bool kSigned = !std::is_same_v<Format, Float8E8M0FNU>;
      if constexpr (Format::kIsFloat && kSigned) rounding = rounding_of<Format>(tag_a);
      comparable = rounding != nullptr;
    }
    if (comparable) use(format, rounding);
  });
  return known && comparable;
}

}  // namespace

bool compare(const Kernels& kernels, const Strided& given_a, Tag tag_a, const Strided& given_b,
             Tag tag_b, unsigned threads, Divergence& result) {
  const FloatMode mode;  // merging compares floats as well
  const u64 numel = given_a.numel();
  const Strided a = simplified(given_a);
  const Strided b = simplified(given_b);
  return with_common_format(tag_a, tag_b, [&](auto format, auto rounding) {
    using Format = decltype(format);
    if (numel == 0) return;
    const auto shares = shared<Divergence>(a, threads, {}, [&](u64 from, u64 to, Divergence& d) {
      d = compare_share<Format>(kernels, tag_b, a, b, from, to, rounding);
    });
    for (const Divergence& share : shares) result.merge(share);
  });
}

bool compare_channels(const Kernels& kernels, const Strided& given_a, Tag tag_a,
                      const Strided& given_b, Tag tag_b, u64 inner, unsigned threads,
                      std::vector<Channel>& channels) {
  const u64 numel = given_a.numel();
  const Strided a = simplified(given_a);
  const Strided b = simplified(given_b);
  return with_common_format(tag_a, tag_b, [&](auto format, auto rounding) {
    using Format = decltype(format);
    if (numel == 0) return;
    using Channels = std::vector<Channel>;
    const Channels none(channels.size());
    const auto shares = shared<Channels>(a, threads, none, [&](u64 from, u64 to, Channels& found) {
      for_each_chunk<Format>(a, b, from, to, rounding,
                             [&](const u8* x, const u8* y, u64 first, u64 count) {
                               channels_run<Format>(kernels, x, y, first, count, inner, found);
                             });
    });
    for (const Channels& share : shares) {
      for (std::size_t c = 0; c < share.size(); ++c) {
        channels[c].differing += share[c].differing;
        channels[c].unordered += share[c].unordered;
        channels[c].max_ulp = std::max(channels[c].max_ulp, share[c].max_ulp);
      }
    }
  });
}

}  // namespace repro_audit

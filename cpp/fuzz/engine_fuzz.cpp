// Tensors of any shape, strides, offset and dtype, made from the fuzzer's bytes: every row of the
// table against the specification, in memory that holds not a byte more than their elements reach.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../src/dispatch.hpp"
#include "../src/divergence.hpp"
#include "../src/range.hpp"

namespace {

using namespace repro_audit;

class Input {
 public:
  Input(const u8* data, std::size_t size) : at_(data), end_(data + size) {}

  // The next byte; 0 behind the end.
  u8 byte() { return at_ == end_ ? u8{0} : *at_++; }

  u64 below(u64 bound) { return (u64{byte()} << 8 | byte()) % bound; }

 private:
  const u8* at_;
  const u8* end_;
};

void check(bool holds, const char* what, const char* engine) {
  if (holds) return;
  std::fprintf(stderr, "%s: %s\n", engine, what);
  std::abort();
}

bool equal(Lanes a, Lanes b) { return a.l0 == b.l0 && a.l1 == b.l1; }

constexpr u64 kSizes[] = {0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 33, 64, 127, 128, 257, 511, 1030};
constexpr u64 kItemsizes[] = {1, 2, 4, 8, 16};

struct Shape {
  std::vector<u64> sizes;
  u64 numel = 1;
};

Shape shape_of(Input& input, u64 most) {
  Shape shape;
  const u64 rank = input.below(5);
  for (u64 d = 0; d < rank; ++d) {
    u64 size = kSizes[input.below(std::size(kSizes))];
    if (shape.numel * size > most) size = 1;
    shape.sizes.push_back(size);
    shape.numel *= size;
  }
  return shape;
}

// A tensor and its memory: `lead` bytes that misalign it, then what its elements reach.
struct Tensor {
  Tensor(Input& input, const Shape& shape, u64 itemsize) {
    const std::size_t rank = shape.sizes.size();
    std::vector<std::size_t> order(rank);
    for (std::size_t d = 0; d < rank; ++d) order[d] = d;
    for (std::size_t d = rank; d > 1; --d) std::swap(order[d - 1], order[input.below(d)]);
    std::vector<i64> strides(rank);
    u64 step = 1;
    u64 below = 0;
    u64 above = 0;
    for (const std::size_t d : order) {
      const u8 how = input.byte();
      strides[d] = how % 8 == 0 ? 0 : static_cast<i64>(step);
      if (how % 8 == 1) strides[d] = -strides[d];
      if (shape.sizes[d] == 0 || shape.numel == 0) continue;
      (strides[d] < 0 ? below : above) += (shape.sizes[d] - 1) * (strides[d] == 0 ? 0 : step);
      if (strides[d] != 0) step *= shape.sizes[d];
      if (how % 8 == 2) step += how / 8;
    }
    const u64 lead = input.below(17);
    const u64 reach = shape.numel == 0 ? 0 : (below + above + 1) * itemsize;
    memory.resize(lead + reach);
    u64 state = input.below(1 << 16);
    const bool few = input.byte() % 4 == 0;  // values, so that pairs are often alike
    for (u8& octet : memory) octet = static_cast<u8>(mix(state++) >> (few ? 63 : 56));
    memory.shrink_to_fit();
    view = {memory.data() + lead + below * itemsize, shape.sizes, strides, itemsize};
  }

  // The stream, an element at a time.
  std::vector<u8> stream() const {
    std::vector<u8> bytes;
    std::vector<u64> index(view.sizes.size());
    for (u64 n = view.numel(); n != 0; --n) {
      i64 at = 0;
      for (std::size_t d = 0; d < index.size(); ++d) {
        at += static_cast<i64>(index[d]) * view.strides[d];
      }
      const u8* p = view.data + at * static_cast<i64>(view.itemsize);
      bytes.insert(bytes.end(), p, p + view.itemsize);
      for (std::size_t d = index.size(); d-- > 0 && ++index[d] == view.sizes[d];) index[d] = 0;
    }
    return bytes;
  }

  std::vector<u8> memory;
  Strided view;
};

// Straight from the specification, for some bytes at `offset` of a stream.
Lanes by_bytes(const u8* p, u64 nbytes, u64 offset, u64 key) {
  const u64 base = key_base(key);
  Lanes sum;
  for (u64 i = 0; i < nbytes; ++i) {
    const u64 at = offset + i;
    const u32 w = static_cast<u32>(p[i]) << (8 * (at % 4));
    const u64 j = at / 4 % kBlockWords;
    const Lanes inner{u64{word_key(base, 0, j)} * w,
                      u64{word_key(base, 1, j)} * exchange_halves(w)};
    sum += weigh(inner, base, at / kBlockBytes);
  }
  return sum;
}

void digests(Input& input) {
  const u64 itemsize = kItemsizes[input.below(std::size(kItemsizes))];
  const u64 most = (input.byte() == 255 ? u64{80} << 10 : u64{4} << 10) / itemsize;
  const Shape shape = shape_of(input, most);
  const Tensor tensor(input, shape, itemsize);
  const u64 key = input.byte();
  const KeyTable keys(key);
  const std::vector<u8> stream = tensor.stream();
  const u64 offset = input.below(1 << 12) << input.byte() % 40;

  // A box of the same elements inside a larger tensor.
  Placement placement{0, std::vector<u64>(shape.sizes.size(), 1)};
  u64 weight = 1;
  for (std::size_t d = shape.sizes.size(); d-- > 0;) {
    const u64 before = input.below(300) << input.byte() % 8;
    placement.weights[d] = weight;
    placement.origin += before * weight;
    weight *= before + shape.sizes[d] + input.below(5);
  }
  Lanes in_box;
  std::vector<u64> index(shape.sizes.size());
  for (u64 n = 0; n < shape.numel; ++n) {
    u64 at = placement.origin;
    for (std::size_t d = 0; d < index.size(); ++d) at += index[d] * placement.weights[d];
    in_box += by_bytes(&stream[n * itemsize], itemsize, at * itemsize, key);
    for (std::size_t d = index.size(); d-- > 0 && ++index[d] == shape.sizes[d];) index[d] = 0;
  }

  const Lanes whole = by_bytes(stream.data(), stream.size(), 0, key);
  const Lanes shifted = by_bytes(stream.data(), stream.size(), offset, key);
  const MultisetKeys bag_keys = MultisetKeys::of(key);
  const Lanes bag = kPortable.multiset(stream.data(), shape.numel, itemsize, bag_keys);
  for (const Kernels* row : available()) {
    check(equal(strided_lanes(*row, keys, tensor.view, 1), whole), "strided_lanes", row->name);
    check(equal(range_lanes(*row, keys, stream.data(), stream.size(), offset), shifted),
          "range_lanes", row->name);
    check(equal(box_lanes(*row, keys, tensor.view, placement, 1), in_box), "box_lanes", row->name);
    check(equal(multiset_lanes(*row, bag_keys, tensor.view, 1), bag), "multiset", row->name);
  }
}

struct Format {
  Tag tag;
  u64 itemsize;
};

constexpr Format kFormats[] = {
    {Tag::float64, 8},     {Tag::float32, 4},         {Tag::float16, 2},
    {Tag::bfloat16, 2},    {Tag::float8_e4m3fn, 1},   {Tag::float8_e4m3fnuz, 1},
    {Tag::float8_e5m2, 1}, {Tag::float8_e5m2fnuz, 1}, {Tag::float8_e8m0fnu, 1},
    {Tag::int32, 4},       {Tag::uint64, 8},          {Tag::int64, 8},
    {Tag::int8, 1},        {Tag::boolean, 1},
};

void divergences(Input& input) {
  const u64 first = input.below(std::size(kFormats));
  const u64 second = input.byte() % 4 == 0 ? input.below(std::size(kFormats)) : first;
  const Format a = kFormats[first];
  const Format b = kFormats[second];
  const Shape shape = shape_of(input, 2048);
  const Tensor x(input, shape, a.itemsize);
  Tensor y(input, shape, b.itemsize);
  if (input.byte() % 2 == 0 && a.itemsize == b.itemsize && !x.memory.empty()) {
    y.memory = x.memory;  // alike but for a few bits
    for (u64 n = input.below(9); n != 0; --n) {
      y.memory[input.below(y.memory.size())] ^= static_cast<u8>(1U << input.byte() % 8);
    }
    y.view.data = y.memory.data() + (x.view.data - x.memory.data());
    y.view.strides = x.view.strides;
  }
  const std::vector<u8> stream_x = x.stream();
  const std::vector<u8> stream_y = y.stream();
  const Strided flat_x{stream_x.data(), {shape.numel}, {1}, a.itemsize};
  const Strided flat_y{stream_y.data(), {shape.numel}, {1}, b.itemsize};
  Divergence expected;
  const bool known = compare(kPortable, flat_x, a.tag, flat_y, b.tag, 1, expected);
  for (const Kernels* row : available()) {
    Divergence found;
    check(compare(*row, x.view, a.tag, y.view, b.tag, 1, found) == known, "dtypes", row->name);
    check(std::memcmp(&found, &expected, sizeof found) == 0, "divergence", row->name);
    if (!known || shape.numel == 0) continue;
    u64 inner = 1;
    for (std::size_t d = 1; d < shape.sizes.size(); ++d) inner *= shape.sizes[d];
    std::vector<Channel> channels(shape.numel / inner);
    compare_channels(*row, x.view, a.tag, y.view, b.tag, inner, 1, channels);
    Channel total;
    for (const Channel& channel : channels) {
      total.differing += channel.differing;
      total.unordered += channel.unordered;
      total.max_ulp = std::max(total.max_ulp, channel.max_ulp);
    }
    check(total.differing == expected.differing && total.unordered == expected.unordered &&
              total.max_ulp == expected.max_ulp,
          "channels", row->name);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size) {
  Input input(data, size);
  if (input.byte() % 2 == 0) {
    digests(input);
  } else {
    divergences(input);
  }
  return 0;
}

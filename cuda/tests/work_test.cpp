// The kernels' work, called on the host for every thread of a grid, against the CPU's engine.
#include "repro_audit/cuda/work.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "../../cpp/src/dispatch.hpp"
#include "../../cpp/src/divergence.hpp"
#include "../../cpp/src/range.hpp"
#include "../src/pieces.hpp"
#include "check.hpp"
#include "tensors.hpp"
#include "vectors.hpp"

namespace {

using namespace repro_audit;

// Grids of one warp, of an odd number of them, and of more than there is work for.
constexpr u64 kGrids[] = {32, 96, 256, 2048};

template <class Source>
Lanes grid_lanes(const Source& source, u64 begin, u64 end, u64 key, u64 threads) {
  Lanes sum;
  for (u64 t = 0; t < threads; ++t) sum += cuda::stream_work(source, begin, end, key, t, threads);
  return sum;
}

Lanes range(const u8* p, u64 nbytes, u64 offset, u64 key, u64 threads) {
  Lanes sum;
  cuda::with_range(reinterpret_cast<u64>(p), nbytes, offset, [&](auto source) {
    sum = grid_lanes(source, offset, offset + nbytes, key, threads);
  });
  return sum;
}

void known_answers() {
  for (const RunCase& c : kRuns) {
    std::vector<u8> bytes(c.nbytes);
    for (u64 i = 0; i < c.nbytes; ++i) bytes[i] = static_cast<u8>(i % 251);
    for (const u64 threads : kGrids) {
      CHECK(equal(range(bytes.data(), c.nbytes, c.offset, c.key, threads), {c.l0, c.l1}));
    }
  }
}

void ranges(const std::vector<u8>& bytes) {
  for (const u64 nbytes : {0, 1, 3, 4, 15, 16, 17, 511, 512, 1023, 1024, 1025, 5000, 70001}) {
    for (const u64 shift : {0, 1, 2, 4, 8, 13}) {
      for (const u64 offset : {0, 1, 6, 1020, 1024, 3000}) {
        const u8* p = bytes.data() + shift;
        const Lanes whole = range_lanes(kPortable, default_keys(), p, nbytes, offset);
        for (const u64 threads : {32, 96, 2048}) {
          CHECK(equal(range(p, nbytes, offset, 0, threads), whole));
        }
      }
    }
  }
}

void strided(const std::vector<u8>& bytes) {
  for (const u64 item : {1, 2, 4, 8, 16}) {
    for (const u64 shift : {u64{0}, item, u64{3}}) {
      for (const Strided& given : views(bytes.data() + shift, item)) {
        const Lanes whole = strided_lanes(kPortable, default_keys(), given, 1);
        const Strided view = simplified(given);
        for (const u64 limit : {1, 4, 16}) {
          cuda::with_pieces(view, limit, [&](const auto& source) {
            for (const u64 threads : {32, 96, 2048}) {
              CHECK(equal(grid_lanes(source, 0, view.nbytes(), 0, threads), whole));
            }
            for (u64 i = 0; i < source.count; ++i) {
              const auto place = source.find(static_cast<u32>(i));
              CHECK(place.address == source.find(i).address);
              CHECK(place.left == source.find(i).left);
            }
          });
        }
      }
    }
  }
}

void dividers() {
  const u32 top = (u32{1} << 31) - 1;
  for (u32 i = 0; i < 3000; ++i) {
    const u32 divisor = i < 1000 ? i + 1 : static_cast<u32>(mix(i) >> 33) | 1U;
    const cuda::Divider divider = cuda::Divider::of(divisor);
    for (u32 k = 0; k < 50; ++k) {
      const u32 n = k == 0 ? top : static_cast<u32>(mix(u64{i} * 64 + k) >> 33) >> (k % 31);
      CHECK(divider.divide(n) == n / divisor);
      const u32 edge = n / divisor * divisor;
      CHECK(divider.divide(edge) == edge / divisor);
      if (edge != 0) CHECK(divider.divide(edge - 1) == (edge - 1) / divisor);
    }
  }
}

void samples(const std::vector<u8>& bytes) {
  for (const u64 numel : {u64{1}, u64{7}, u64{1000}, u64{1} << 40, ~u64{0}}) {
    for (const u64 count : {u64{1}, u64{3}, std::min<u64>(numel, 1000)}) {
      if (count > numel) continue;
      for (u64 i = 0; i < count; ++i) {
        const auto expected = static_cast<unsigned __int128>(i) * numel / count;
        CHECK(sample_index(i, count, numel) == static_cast<u64>(expected));
      }
    }
  }
  const auto each = [&]<int kItem>() {
    for (const Strided& given : views(bytes.data(), kItem)) {
      const Strided view = simplified(given);
      for (const u64 count : {u64{1}, std::min<u64>(5, view.numel()), view.numel()}) {
        std::vector<u8> expected(count * kItem);
        sample(given, count, expected.data());
        std::vector<u8> found(count * kItem);
        const auto pieces = cuda::pieces_of<kItem>(view);
        for (u64 t = 0; t < 96; ++t) {
          cuda::sample_work<kItem>(pieces, count, reinterpret_cast<u64>(found.data()), t, 96);
        }
        CHECK(found == expected);
      }
    }
  };
  each.operator()<1>();
  each.operator()<2>();
  each.operator()<4>();
  each.operator()<8>();
  each.operator()<16>();
}

void tables(const std::vector<u8>& bytes) {
  std::vector<cuda::Row> rows;
  u64 units = 0;
  u64 at = 0;
  for (const u64 nbytes : {0, 0, 5, 8192, 8193, 0, 100000, 4096, 1, 262144, 3, 0}) {
    rows.push_back({reinterpret_cast<u64>(bytes.data()) + at, nbytes, units});
    units += cuda::units_of(nbytes);
    at += nbytes + 3;
  }
  for (const u64 threads : kGrids) {
    std::vector<Lanes> found(rows.size());
    for (u64 t = 0; t < threads; ++t) {
      cuda::table_work(rows.data(), rows.size(), units, 7, t, threads,
                       [&](u64 row, Lanes part) { found[row] += part; });
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const u8* p = reinterpret_cast<const u8*>(rows[i].address);
      CHECK(equal(found[i], range_lanes(kPortable, KeyTable(7), p, rows[i].nbytes, 0)));
    }
  }
}

template <int kItem>
void multiset(const std::vector<u8>& bytes) {
  for (const Strided& given : views(bytes.data() + kItem, kItem)) {
    const Strided view = reordered(given);
    const Lanes whole = multiset_lanes(kPortable, MultisetKeys::of(3), given, 1);
    for (const u64 threads : kGrids) {
      Lanes sum;
      const auto source = cuda::pieces_of<kItem>(view);
      for (u64 t = 0; t < threads; ++t) {
        sum += cuda::multiset_work<kItem>(source, view.nbytes(), 3, t, threads);
      }
      CHECK(equal(sum, whole));
    }
  }
  for (const u64 count : {1, 5, 1000}) {
    const u64 nbytes = count * kItem;
    const u64 address = reinterpret_cast<u64>(bytes.data());
    Lanes sum;
    for (u64 t = 0; t < 96; ++t) {
      sum += cuda::multiset_work<kItem>(cuda::Contiguous<1>{address, 0, nbytes}, nbytes, 0, t, 96);
    }
    CHECK(equal(sum, kPortable.multiset(bytes.data(), count, kItem, MultisetKeys::of(0))));
  }
}

// Records merged as the host merges those of a grid's blocks, of `block` threads each.
template <class Format>
Divergence grid_divergence(const u8* a, const u8* b, u64 numel, u64 threads, u64 block) {
  constexpr int kItem = sizeof(typename Format::Bits);
  Divergence total;
  cuda::Reached<Format> reached;
  for (u64 t = 0; t < threads; ++t) {
    if (t % block == 0) reached.clear();
    Divergence part;
    const cuda::Contiguous<kItem> x{reinterpret_cast<u64>(a), 0, numel * kItem};
    const cuda::Contiguous<kItem> y{reinterpret_cast<u64>(b), 0, numel * kItem};
    cuda::ulp_work<Format>(x, y, numel, t, threads, reached, part,
                           [&](int bin) { ++part.histogram[bin]; });
    part.histogram[0] = part.signed_zero + part.nan_payload;
    total.merge(part);
  }
  total.numel = numel;
  total.histogram[0] += numel - total.differing;
  return total;
}

void divergences(const std::vector<u8>& bytes) {
  for (u64 number = 1; number <= 22; ++number) {
    const Tag tag = static_cast<Tag>(number);
    with_format(tag, [&](auto format) {
      using Format = decltype(format);
      constexpr u64 kItem = sizeof(typename Format::Bits);
      std::vector<u8> near(bytes.begin(), bytes.begin() + 8000);
      for (u64 i = 0; i < near.size(); i += 97) near[i] = static_cast<u8>(near[i] + 1);
      const std::vector<u8> other(bytes.begin() + 8000, bytes.begin() + 16000);
      for (const std::vector<u8>& b : {near, other}) {
        for (const u64 numel : {u64{1}, u64{37}, 8000 / kItem}) {
          Divergence expected;
          CHECK(compare(kPortable, {bytes.data(), {numel}, {1}, kItem}, tag,
                        {b.data(), {numel}, {1}, kItem}, tag, 1, expected));
          for (const u64 threads : kGrids) {
            for (const u64 block : {1, 128}) {
              const Divergence found =
                  grid_divergence<Format>(bytes.data(), b.data(), numel, threads, block);
              CHECK(std::memcmp(&found, &expected, sizeof found) == 0);
            }
          }
        }
      }
    });
  }
}

}  // namespace

int main() {
  const std::vector<u8> bytes = noise(u64{1} << 20);
  known_answers();
  ranges(bytes);
  strided(bytes);
  dividers();
  tables(bytes);
  samples(bytes);
  multiset<1>(bytes);
  multiset<2>(bytes);
  multiset<4>(bytes);
  multiset<8>(bytes);
  multiset<16>(bytes);
  divergences(bytes);
  return conclude("work of the kernels on the host");
}

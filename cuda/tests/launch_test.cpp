// The kernels, launched as a program launches them, on emulated devices: against the known answers
// and the CPU's engine, in several orders of blocks and threads.
#include "../src/launch.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "../../cpp/src/dispatch.hpp"
#include "../../cpp/src/divergence.hpp"
#include "../../cpp/src/range.hpp"
#include "check.hpp"
#include "machine.hpp"
#include "tensors.hpp"
#include "vectors.hpp"

namespace {

using namespace repro_audit;
using emulated::machine;
using emulated::Schedule;

// Their multiprocessors.
const std::vector<int> kDevices = {1, 2, 132, 20};

u64 address(const void* p) { return reinterpret_cast<u64>(p); }

// What a launch adds to two sums that are not 0.
template <class Add>
Lanes added(Add&& add) {
  const Lanes before{~u64{0} - 5, 77};
  std::vector<u64> out{before.l0, before.l1};
  add(address(out.data()));
  emulated::synchronize();
  return {out[0] - before.l0, out[1] - before.l1};
}

Lanes range(const u8* p, u64 nbytes, u64 offset, u64 key, int device) {
  return added(
      [&](u64 out) { cuda::add_range(address(p), nbytes, offset, key, out, {device, nullptr}); });
}

std::vector<u8> pattern(u64 nbytes, u64 modulus) {
  std::vector<u8> bytes(nbytes);
  for (u64 i = 0; i < nbytes; ++i) bytes[i] = static_cast<u8>(i % modulus);
  return bytes;
}

void known_answers() {
  for (const RunCase& c : kRuns) {
    const std::vector<u8> bytes = pattern(c.nbytes, 251);
    CHECK(equal(range(bytes.data(), c.nbytes, c.offset, c.key, 1), {c.l0, c.l1}));
  }
  for (const TagCase& c : kTags) {
    const std::vector<u8> bytes = pattern(c.nbytes, c.tag == 1 ? 2 : 251);
    const Strided view{bytes.data(), {c.nbytes / c.itemsize}, {1}, c.itemsize};
    const Lanes bag = added([&](u64 out) { cuda::add_multiset(view, 0, out, {1, nullptr}); });
    CHECK(equal(bag, {c.m0, c.m1}));
  }
}

// Memory of its own, so that a read beyond it is found.
void ranges(const std::vector<u8>& bytes) {
  for (const u64 nbytes : {0, 1, 3, 15, 16, 17, 512, 1023, 1025, 5000, 70001}) {
    for (const u64 shift : {0, 1, 2, 4, 8, 13}) {
      const std::vector<u8> memory(bytes.begin(), bytes.begin() + static_cast<i64>(shift + nbytes));
      const u8* p = memory.data() + shift;
      for (const u64 offset : {u64{0}, u64{1}, u64{6}, u64{1020}, u64{3000}, (u64{5} << 40) + 3}) {
        const int device = static_cast<int>((nbytes + shift + offset) % 3);
        const Lanes whole = range_lanes(kPortable, KeyTable(9), p, nbytes, offset);
        CHECK(equal(range(p, nbytes, offset, 9, device), whole));
      }
    }
  }
}

// A view's elements alone: a copy of no more memory than it reaches, `shift` bytes off alignment.
struct Fitted {
  Fitted(const Strided& given, u64 shift) : view(given) {
    i64 low = 0;
    i64 high = 1;
    for (std::size_t d = 0; d < view.sizes.size(); ++d) {
      const i64 reach = view.strides[d] * static_cast<i64>(view.sizes[d] - 1);
      (reach < 0 ? low : high) += reach;
    }
    const i64 item = static_cast<i64>(view.itemsize);
    memory.assign(shift, 0);
    memory.insert(memory.end(), view.data + low * item, view.data + high * item);
    view.data = memory.data() + shift - low * item;
  }
  std::vector<u8> memory;
  Strided view;
};

void strided(const std::vector<u8>& bytes) {
  for (const u64 item : {1, 2, 4, 8, 16}) {
    for (const u64 shift : {u64{0}, item, u64{3}}) {
      for (const Strided& any : views(bytes.data(), item)) {
        const Fitted fitted(any, shift);
        const Strided& view = fitted.view;
        const cuda::Queue queue{static_cast<int>(view.numel() + item + shift) % 3, nullptr};
        CHECK(equal(added([&](u64 out) { cuda::add_strided(view, 5, out, queue); }),
                    strided_lanes(kPortable, KeyTable(5), view, 1)));
        CHECK(equal(added([&](u64 out) { cuda::add_multiset(view, 5, out, queue); }),
                    multiset_lanes(kPortable, MultisetKeys::of(5), view, 1)));
      }
    }
  }
}

void samples(const std::vector<u8>& bytes) {
  for (const u64 item : {1, 2, 4, 8, 16}) {
    for (const Strided& any : views(bytes.data(), item)) {
      const Fitted fitted(any, item);
      const u64 numel = any.numel();
      for (const u64 count : {u64{0}, u64{1}, std::min<u64>(7, numel), numel}) {
        std::vector<u8> expected(count * item);
        if (count != 0) sample(fitted.view, count, expected.data());
        std::vector<u8> found(count * item);
        cuda::sample(fitted.view, count, address(found.data()), {1, nullptr});
        emulated::synchronize();
        CHECK(found == expected);
      }
    }
  }
}

// Tables of `count` rows: empty, of any alignment, around a unit, and one that is long.
void table(const std::vector<u8>& bytes, u64 count) {
  constexpr u64 kBytes[] = {5, 0, 1024, 0, 8191, 8192, 8193, 1, 0, 300, 17000};
  std::vector<cuda::Row> rows;
  for (u64 i = 0; i < count; ++i) {
    const u64 nbytes = i + 1 == count / 2 ? 400000 : kBytes[(i * i + i / 3) % std::size(kBytes)];
    const bool nothing = i >= 2 * cuda::kMostRows;
    rows.push_back({address(bytes.data()) + i * 37 % 20000, nothing ? 0 : nbytes, 99});
  }
  for (const int device : {0, 1}) {
    machine().launches.clear();
    std::vector<u64> out(2 * count, 3);
    cuda::add_table(rows, 7, address(out.data()), {device, nullptr});
    emulated::synchronize();
    const KeyTable keys(7);
    for (u64 i = 0; i < count; ++i) {
      const u8* p = reinterpret_cast<const u8*>(rows[i].address);
      const Lanes lanes = range_lanes(kPortable, keys, p, rows[i].nbytes, 0);
      CHECK(equal(lanes, {out[2 * i] - 3, out[2 * i + 1] - 3}));
    }
    for (u64 first = 0, launch = 0; first < count; first += cuda::kMostRows, ++launch) {
      const bool few = count - first <= cuda::kFewRows;
      const u64 expected =
          few ? sizeof(cuda::Table<cuda::kFewRows>) : sizeof(cuda::Table<cuda::kMostRows>);
      const auto& launches = machine().launches;
      if (first == 2 * cuda::kMostRows) {
        CHECK(launches.size() == 2);
      } else if (launch < launches.size()) {
        CHECK(launches[launch].parameter_bytes == expected + 4 * sizeof(u64));
      } else {
        CHECK(launch < launches.size());
      }
    }
  }
}

std::vector<u8> repeated(const std::vector<u64>& numbers, u64 item, u64 each, u64 all) {
  std::vector<u8> bytes;
  for (u64 round = 0; round < all; ++round) {
    for (const u64 number : numbers) {
      for (u64 i = 0; i < each; ++i) {
        for (u64 b = 0; b < item; ++b) bytes.push_back(static_cast<u8>(number >> (8 * b)));
      }
    }
  }
  return bytes;
}

// All patterns of 8 bits; of wider ones those around every power of two, where zeros, subnormals,
// infinities and NaNs begin and end.
std::vector<u64> special(u64 item) {
  std::vector<u64> numbers;
  const u64 mask = ~u64{0} >> (64 - 8 * item);
  if (item == 1) {
    for (u64 i = 0; i < 256; ++i) numbers.push_back(i);
    return numbers;
  }
  for (u64 bit = 0; bit < 8 * item; bit += item == 8 ? 3 : 1) {
    for (const u64 number : {u64{1} << bit, ~u64{0} << bit, ~(u64{1} << bit)}) {
      for (const u64 near : {u64{0}, u64{1}}) numbers.push_back((number - near) & mask);
    }
  }
  for (const u64 top : {0x7F80, 0x7C00, 0x7FF0, 0xFF80, 0xFC00, 0xFFF0}) {
    for (const u64 near : {u64{0}, u64{1}, ~u64{0}}) {
      numbers.push_back(((top << (8 * item - 16)) + near) & mask);
    }
  }
  return numbers;
}

void divergence(Tag tag, u64 item, const u8* a, const u8* b, u64 numel, int device) {
  Divergence expected;
  CHECK(
      compare(kPortable, {a, {numel}, {1}, item}, tag, {b, {numel}, {1}, item}, tag, 1, expected));
  const u64 count = cuda::compare_records(numel, device);
  std::vector<Divergence> records(count);
  std::memset(static_cast<void*>(records.data()), 0xEE, count * sizeof(Divergence));
  CHECK(cuda::compare(tag, address(a), address(b), numel, address(records.data()),
                      {device, nullptr}));
  emulated::synchronize();
  Divergence found;
  for (const Divergence& record : records) found.merge(record);
  found.numel = numel;
  found.histogram[0] += numel - found.differing;
  CHECK(std::memcmp(&found, &expected, sizeof found) == 0);
}

void divergences(const std::vector<u8>& bytes) {
  for (u64 number = 1; number <= 22; ++number) {
    const Tag tag = static_cast<Tag>(number);
    u64 item = 0;
    with_format(tag, [&](auto format) { item = sizeof(typename decltype(format)::Bits); });
    if (item == 0) {
      CHECK(!cuda::compare(tag, 16, 32, 5, 64, {0, nullptr}));
      continue;
    }
    const std::vector<u64> numbers = special(item);
    const std::vector<u8> rows = repeated(numbers, item, numbers.size(), 1);
    const std::vector<u8> columns = repeated(numbers, item, 1, numbers.size());
    divergence(tag, item, rows.data(), columns.data(), numbers.size() * numbers.size(), 1);
    // All differ, by as much: one bin takes every count.
    const std::vector<u8> ones = repeated({1}, item, 3000, 1);
    const std::vector<u8> twos = repeated({2}, item, 3000, 1);
    divergence(tag, item, ones.data(), twos.data(), 3000, 0);
    for (const u64 numel : {1, 2, 3, 31, 37, 1000}) {
      for (const u64 shift : {u64{0}, item}) {
        const auto begin = bytes.begin() + static_cast<i64>(4096 * numel);
        std::vector<u8> a(begin, begin + static_cast<i64>(shift + numel * item));
        std::vector<u8> b = a;
        for (u64 i = shift; i < b.size(); i += 97) b[i] = static_cast<u8>(b[i] + 1);
        divergence(tag, item, a.data() + shift, b.data() + shift, numel,
                   static_cast<int>(numel % 3));
        divergence(tag, item, a.data(), a.data(), numel, 1);
      }
    }
  }
}

// Grids that fill a device, with more to do than one round.
void large(const std::vector<u8>& bytes, int device) {
  const auto multiprocessors = static_cast<unsigned>(kDevices[static_cast<std::size_t>(device)]);
  const u64 nbytes = 9 * cuda::kBlockwise * multiprocessors * kBlockBytes;
  for (const u64 shift : {0, 4}) {
    const u8* p = bytes.data() + shift;
    const Lanes whole = range_lanes(kPortable, default_keys(), p, nbytes, 0);
    CHECK(equal(range(p, nbytes, 0, 0, device), whole));
    CHECK(machine().launches.back().blocks == multiprocessors * cuda::kBlockwise);
  }
  const u64 numel = nbytes / 4;
  const cuda::Queue queue{device, nullptr};
  const i64 rows = static_cast<i64>(numel / 64);
  for (const Strided& view : {Strided{bytes.data(), {numel}, {1}, 4},
                              Strided{bytes.data(), {numel / 64, 64}, {1, rows}, 4}}) {
    CHECK(equal(added([&](u64 out) { cuda::add_multiset(view, 5, out, queue); }),
                multiset_lanes(kPortable, MultisetKeys::of(5), view, 1)));
    CHECK(machine().launches.back().blocks == multiprocessors * cuda::kThreadwise);
    std::vector<u8> expected(nbytes / 2);
    sample(view, numel / 2, expected.data());
    std::vector<u8> found(nbytes / 2);
    cuda::sample(view, numel / 2, address(found.data()), queue);
    emulated::synchronize();
    CHECK(found == expected);
    CHECK(machine().launches.back().blocks == multiprocessors * cuda::kThreadwise);
  }
  divergence(Tag::float32, 4, bytes.data(), bytes.data() + 4096, numel, device);
  CHECK(machine().launches.back().blocks == multiprocessors * cuda::kThreadwise);
}

}  // namespace

int main(int count, char** arguments) {
  const std::string order = count > 1 ? arguments[1] : "forward";
  Schedule& schedule = machine().schedule;
  if (order == "backward") schedule = {Schedule::Order::backward, true, 0};
  if (order == "shuffled") schedule = {Schedule::Order::shuffled, false, 1};
  machine().multiprocessors = kDevices;
  const std::vector<u8> bytes = noise(u64{10} << 20);
  known_answers();
  ranges(bytes);
  strided(bytes);
  samples(bytes);
  for (const u64 rows : {0, 1, 64, 65, 1360, 1361, 3000}) table(bytes, rows);
  divergences(bytes);
  large(bytes, order == "forward" ? 2 : 3);
  return conclude("launches on emulated devices");
}

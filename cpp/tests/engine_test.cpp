// Known answers and parity of every row of the table that this CPU can run. No framework: a failed
// check prints its line and the process ends with 1.
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../src/dispatch.hpp"
#include "../src/divergence.hpp"
#include "../src/range.hpp"
#include "../src/read.hpp"
#include "vectors.hpp"

namespace {

using namespace repro_audit;

int failures = 0;

void check(bool holds, const char* what, int line, const char* engine) {
  if (holds) return;
  ++failures;
  std::fprintf(stderr, "line %d, %s: %s\n", line, engine, what);
}

#define CHECK(condition) check((condition), #condition, __LINE__, kernels.name)

std::vector<u8> pattern(u64 nbytes, u64 modulus = 251) {
  std::vector<u8> bytes(nbytes);
  for (u64 i = 0; i < nbytes; ++i) bytes[i] = static_cast<u8>(i % modulus);
  return bytes;
}

std::vector<u8> noise(u64 nbytes) {
  std::vector<u8> bytes(nbytes);
  for (u64 i = 0; i < nbytes; ++i) bytes[i] = static_cast<u8>(mix(i) >> 56);
  return bytes;
}

std::string hex(Digest digest) {
  char text[33];
  std::snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, digest.hi, digest.lo);
  return text;
}

bool equal(Lanes a, Lanes b) { return a.l0 == b.l0 && a.l1 == b.l1; }

// Straight from the specification, a byte at a time.
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

void known_answers(const Kernels& kernels) {
  for (const RunCase& c : kRuns) {
    const std::vector<u8> bytes = pattern(c.nbytes);
    const KeyTable keys(c.key);
    const Lanes lanes = range_lanes(kernels, keys, bytes.data(), c.nbytes, c.offset);
    CHECK(equal(lanes, {c.l0, c.l1}));
    if (c.tag != 0) CHECK(hex(finalize(lanes, c.nbytes, c.tag)) == c.digest);
  }
  for (const TagCase& c : kTags) {
    const std::vector<u8> bytes = pattern(c.nbytes, c.tag == 1 ? 2 : 251);
    const Lanes lanes = range_lanes(kernels, default_keys(), bytes.data(), c.nbytes, 0);
    CHECK(hex(finalize(lanes, c.nbytes, c.tag)) == c.digest);
    const Strided view{bytes.data(), {c.nbytes / c.itemsize}, {1}, c.itemsize};
    const Lanes bag = multiset_lanes(kernels, MultisetKeys::of(0), view, 1);
    CHECK(equal(bag, {c.m0, c.m1}));
    CHECK(hex(finalize(bag, c.nbytes, c.tag + kMultisetTag)) == c.multiset);
  }
}

void boundaries(const Kernels& kernels, const std::vector<u8>& bytes) {
  for (const u64 length : {0, 4, 8, 32, 64, 512, 1024, 2048, 65536, 262144, 263168}) {
    for (const int d : {-5, -4, -1, 0, 1, 4, 5}) {
      if (d < 0 && length < 5) continue;
      const u64 nbytes = length + static_cast<u64>(d);
      for (const u64 offset : {u64{0}, u64{3}, u64{1020}, u64{1} << 40}) {
        const u8* p = bytes.data() + offset % 7;
        CHECK(equal(range_lanes(kernels, default_keys(), p, nbytes, offset),
                    by_bytes(p, nbytes, offset, 0)));
      }
    }
  }
}

void threads_and_strides(const Kernels& kernels, const std::vector<u8>& bytes) {
  const u64 n = 3001;
  const Lanes whole = range_lanes(kernels, default_keys(), bytes.data(), n * n, 0);
  for (const unsigned threads : {0U, 2U, 5U}) {
    CHECK(equal(parallel_lanes(kernels, default_keys(), bytes.data(), n * n, 0, threads), whole));
  }
  std::vector<u8> turned(n * n);
  for (u64 r = 0; r < n; ++r) {
    for (u64 c = 0; c < n; ++c) turned[c * n + r] = bytes[r * n + c];
  }
  const i64 step = static_cast<i64>(n);
  for (const unsigned threads : {1U, 3U}) {
    const Strided view{turned.data(), {n, n}, {1, step}, 1};
    CHECK(equal(strided_lanes(kernels, default_keys(), view, threads), whole));
    const Strided backwards{turned.data() + n * n - 1, {n * n}, {-1}, 1};
    const std::vector<u8> reversed(turned.rbegin(), turned.rend());
    CHECK(equal(strided_lanes(kernels, default_keys(), backwards, threads),
                range_lanes(kernels, default_keys(), reversed.data(), n * n, 0)));
  }
  CHECK(read_sum(kernels, bytes.data(), n * n, 1) == read_sum(kernels, bytes.data(), n * n, 3));
}

void divergences(const Kernels& kernels, const std::vector<u8>& bytes) {
  const u64 count = u64{3} << 20;
  const std::vector<u8> a(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(4 * count));
  for (const u64 at : {u64{0}, u64{31}, u64{32}, count / 2, count - 1}) {
    std::vector<u8> b = a;
    b[4 * at] ^= 1;  // the last bit of a fraction
    const Strided x{a.data(), {count}, {1}, 4};
    const Strided y{b.data(), {count}, {1}, 4};
    for (const unsigned threads : {1U, 3U}) {
      Divergence d;
      CHECK(compare(kernels, x, Tag::int32, y, Tag::int32, threads, d));
      CHECK(d.numel == count && d.differing == 1 && d.max_ulp == 1 && d.sum_lo == 1);
      CHECK(d.first_index == at && d.max_index == at && d.histogram[0] == count - 1);
    }
  }
}

// Noise against noise holds every kind of pair; a row's vectors say what plain C++ does.
void divergences_of_noise(const Kernels& kernels, const std::vector<u8>& bytes) {
  for (const auto& [tag, item] : {std::pair{Tag::float32, 4},
                                  {Tag::float16, 2},
                                  {Tag::bfloat16, 2},
                                  {Tag::float64, 8},
                                  {Tag::float8_e4m3fn, 1}}) {
    for (const u64 start : {0, 1, 63}) {
      for (const u64 count : {1, 15, 17, 4099, 100003}) {
        const u64 width = static_cast<u64>(item);
        const Strided a{bytes.data() + start, {count}, {1}, width};
        const Strided b{bytes.data() + (u64{1} << 20) + 3 * start, {count}, {1}, width};
        Divergence found;
        Divergence expected;
        CHECK(compare(kernels, a, tag, b, tag, 1, found));
        CHECK(compare(kPortable, a, tag, b, tag, 1, expected));
        CHECK(std::memcmp(&found, &expected, sizeof found) == 0);
      }
    }
  }
}

}  // namespace

int main() {
  const std::vector<u8> bytes = noise(u64{13} << 20);
  for (const Kernels* kernels : available()) {
    known_answers(*kernels);
    boundaries(*kernels, bytes);
    threads_and_strides(*kernels, bytes);
    divergences(*kernels, bytes);
    divergences_of_noise(*kernels, bytes);
    std::printf("%s: %s\n", kernels->name, failures == 0 ? "passed" : "FAILED");
  }
  return failures == 0 ? 0 : 1;
}

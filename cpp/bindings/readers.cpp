#include "readers.hpp"

#include <cstring>
#include <system_error>

#include "../src/dispatch.hpp"
#include "../src/parallel.hpp"
#include "../src/range.hpp"
#include "arguments.hpp"

namespace repro_audit::bindings {
namespace {

// Above this a stream is worth several threads of its own.
constexpr u64 kLarge = u64{8} << 20;

// A thread for each so many bytes: making one costs what reading 0.3 MiB takes.
constexpr u64 kHelperBytes = u64{4} << 20;

void digest_row(const Row& row, unsigned threads, u8* to) {
  const u8* p = reinterpret_cast<const u8*>(row.address);
  const Lanes lanes = parallel_lanes(active(), default_keys(), p, row.nbytes, 0, threads);
  const auto printed = in_print_order(finalize(lanes, row.nbytes, row.tag));
  std::memcpy(to, printed.data(), printed.size());
}

}  // namespace

Readers::Readers(std::size_t most)
    : rows_(most), digests_(16 * most), most_helpers_(usable_cpus() - 1) {}

Readers::~Readers() {
  complete_.store(true, std::memory_order_release);
  for (std::thread& helper : helpers_) helper.join();
}

void Readers::add(Row row) {
  const u64 at = added_.load(std::memory_order_relaxed);
  rows_[at] = row;
  added_.store(at + 1, std::memory_order_release);
  nbytes_ += row.nbytes;
  small_ += row.nbytes < kLarge ? row.nbytes : 0;
  if (small_ / kHelperBytes > helpers_.size() && helpers_.size() < most_helpers_) start_helper();
}

void Readers::start_helper() {
  try {
    helpers_.emplace_back([this] { read(); });
  } catch (const std::system_error&) {
    most_helpers_ = 0;  // no more threads to be had: those that there are do it all
  }
}

void Readers::read() {
  for (;;) {
    const u64 at = taken_.fetch_add(1, std::memory_order_relaxed);
    while (at >= added_.load(std::memory_order_acquire)) {
      // Nothing is added once it is complete, so a second look decides.
      if (complete_.load(std::memory_order_acquire) &&
          at >= added_.load(std::memory_order_acquire)) {
        return;
      }
      std::this_thread::yield();
    }
    if (rows_[at].nbytes < kLarge) digest_row(rows_[at], 1, &digests_[16 * at]);
  }
}

const std::vector<u8>& Readers::finish() {
  complete_.store(true, std::memory_order_release);
  read();
  for (std::thread& helper : helpers_) helper.join();
  helpers_.clear();
  for (u64 i = 0; i < added_.load(std::memory_order_relaxed); ++i) {
    if (rows_[i].nbytes >= kLarge) digest_row(rows_[i], 0, &digests_[16 * i]);
  }
  return digests_;
}

}  // namespace repro_audit::bindings

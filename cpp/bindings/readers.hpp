// Digests of many streams by threads that read while more streams are still being named.
#pragma once

#include <atomic>
#include <thread>
#include <vector>

#include "repro_audit/config.hpp"

namespace repro_audit::bindings {

struct Row {
  u64 address;
  u64 nbytes;
  u64 tag;
};

// Takes rows one by one and has them read by threads made for the purpose, so that asking torch
// for the next tensor, which waits for memory as well, overlaps with reading the last. Which thread
// reads a row changes nothing of its digest.
class Readers {
 public:
  explicit Readers(std::size_t most);
  Readers(const Readers&) = delete;
  Readers& operator=(const Readers&) = delete;
  ~Readers();

  // At most `most` times, on one thread.
  void add(Row row);

  // Waits for all; 16 bytes a row, key 0, in print order, in the order of the rows. The caller may
  // have released the GIL.
  const std::vector<u8>& finish();

  // Of all rows.
  u64 nbytes() const { return nbytes_; }

 private:
  void start_helper();
  void read();

  std::vector<Row> rows_;
  std::vector<u8> digests_;
  std::vector<std::thread> helpers_;
  unsigned most_helpers_;
  u64 nbytes_ = 0;
  u64 small_ = 0;  // bytes of the rows that one thread reads
  std::atomic<u64> added_ = 0;
  std::atomic<u64> taken_ = 0;
  std::atomic<bool> complete_ = false;
};

}  // namespace repro_audit::bindings

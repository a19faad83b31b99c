#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "../src/dispatch.hpp"
#include "../src/parallel.hpp"
#include "../src/range.hpp"
#include "arguments.hpp"
#include "bindings.hpp"

namespace repro_audit::bindings {
namespace {

namespace py = pybind11;

struct Row {
  u64 address;
  u64 nbytes;
  u64 tag;
};

// Above this a stream is worth several threads of its own.
constexpr u64 kLarge = u64{8} << 20;

void digest_row(const Row& row, unsigned threads, u8* to) {
  const u8* p = reinterpret_cast<const u8*>(row.address);
  const Lanes lanes = parallel_lanes(active(), default_keys(), p, row.nbytes, 0, threads);
  const auto printed = in_print_order(finalize(lanes, row.nbytes, row.tag));
  std::memcpy(to, printed.data(), printed.size());
}

std::vector<Row> rows_of(const py::buffer& table) {
  Py_buffer view;  // a simple one: contiguous, or BufferError
  if (PyObject_GetBuffer(table.ptr(), &view, PyBUF_SIMPLE) != 0) throw py::error_already_set();
  const std::unique_ptr<Py_buffer, void (*)(Py_buffer*)> held(&view, PyBuffer_Release);
  const u64 size = static_cast<u64>(view.len);
  if (size % sizeof(Row) != 0) throw py::value_error("table: rows are three 64-bit numbers");
  std::vector<Row> rows(size / sizeof(Row));
  if (size != 0) std::memcpy(rows.data(), view.buf, size);
  return rows;
}

py::bytes digest_table(const py::buffer& table, unsigned threads) {
  const std::vector<Row> rows = rows_of(table);
  std::vector<u64> before(rows.size() + 1, 0);  // bytes of the small streams before each row
  u64 total = 0;
  for (u64 i = 0; i < rows.size(); ++i) {
    pointer(rows[i].address, rows[i].nbytes);
    total += rows[i].nbytes;
    before[i + 1] = before[i] + (rows[i].nbytes < kLarge ? rows[i].nbytes : 0);
  }
  std::vector<u8> digests(16 * rows.size());
  {
    const Release release(total);
    for (u64 i = 0; i < rows.size(); ++i) {
      if (rows[i].nbytes >= kLarge) digest_row(rows[i], threads, &digests[16 * i]);
    }
    const unsigned parts = worth_threads(before.back(), threads);
    run_parallel(parts, [&](unsigned part) {
      const auto bound = [&](u64 at) {
        return static_cast<u64>(
            std::lower_bound(before.begin(), before.end() - 1, before.back() / parts * at) -
            before.begin());
      };
      const u64 to = part + 1 == parts ? rows.size() : bound(part + 1);
      for (u64 i = part == 0 ? 0 : bound(part); i < to; ++i) {
        if (rows[i].nbytes < kLarge) digest_row(rows[i], 1, &digests[16 * i]);
      }
    });
  }
  return py::bytes(reinterpret_cast<const char*>(digests.data()), digests.size());
}

}  // namespace

void register_table(py::module_& module) {
  using namespace py::literals;
  module.def("digest_table", &digest_table, "table"_a, "threads"_a = 0, py::pos_only(),
             "The 16-byte digests, key 0, one after another, of the streams that a table of "
             "addresses, byte counts and tags (64-bit numbers) names.");
}

}  // namespace repro_audit::bindings

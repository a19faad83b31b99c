// Launches of the digest's kernels: of one stream, contiguous or strided, and of many at once.
#include "grid.hpp"
#include "pieces.hpp"
#include "repro_audit/cuda/kernels.cuh"

namespace repro_audit::cuda {

void add_range(u64 address, u64 nbytes, u64 offset, u64 key, u64 out, Queue queue) {
  if (nbytes == 0) return;
  const OnDevice on(queue.device);
  const u64 blocks = nbytes / kBlockBytes + 2;
  const unsigned grid = grid_for(blocks, kThreads, kBlockwise, queue.device);
  with_range(address, nbytes, offset, [&](auto source) {
    enqueue(queue, "the digest's kernel", grid, kThreads, stream_kernel<decltype(source)>, source,
            offset, offset + nbytes, key, reinterpret_cast<u64*>(out));
  });
}

void add_strided(const Strided& given, u64 key, u64 out, Queue queue) {
  const u64 nbytes = given.nbytes();
  if (nbytes == 0) return;
  const Strided view = simplified(given);
  if (view.sizes.size() == 1 && view.strides[0] == 1) {
    return add_range(reinterpret_cast<u64>(view.data), nbytes, 0, key, out, queue);
  }
  const OnDevice on(queue.device);
  const unsigned grid = grid_for(nbytes / kBlockBytes + 1, kThreads, kBlockwise, queue.device);
  with_pieces(view, 16, [&]<class Source>(const Source& source) {
    enqueue(queue, "the strided digest's kernel", grid, kThreads, stream_kernel<Source>, source,
            u64{0}, nbytes, key, reinterpret_cast<u64*>(out));
  });
}

namespace {

template <int kRows>
void launch_table(const Row* rows, u64 count, u64 units, u64 key, u64 out, Queue queue) {
  Table<kRows> table;
  std::copy_n(rows, count, table.rows);
  const unsigned grid = grid_for(units, kThreads, kBlockwise, queue.device);
  enqueue(queue, "the table's kernel", grid, kThreads, table_kernel<kRows>, table, count, units,
          key, reinterpret_cast<u64*>(out));
}

}  // namespace

void add_table(std::vector<Row> rows, u64 key, u64 out, Queue queue) {
  const OnDevice on(queue.device);
  for (u64 first = 0; first < rows.size(); first += kMostRows) {
    const u64 count = std::min<u64>(kMostRows, rows.size() - first);
    u64 units = 0;
    for (u64 i = first; i < first + count; ++i) {
      rows[i].first_unit = units;
      units += units_of(rows[i].nbytes);
    }
    if (units == 0) continue;
    const auto launch = count <= kFewRows ? launch_table<kFewRows> : launch_table<kMostRows>;
    launch(rows.data() + first, count, units, key, out + 16 * first, queue);
  }
}

void load_digests(int device) {
  const OnDevice on(device);
  load(stream_kernel<Contiguous<1>>);
  load(stream_kernel<Contiguous<2>>);
  load(stream_kernel<Contiguous<4>>);
  load(stream_kernel<Contiguous<16>>);
  load(stream_kernel<Pieces<1>>);
  load(stream_kernel<Pieces<2>>);
  load(stream_kernel<Pieces<4>>);
  load(stream_kernel<Pieces<8>>);
  load(stream_kernel<Pieces<16>>);
  load(table_kernel<kFewRows>);
  load(table_kernel<kMostRows>);
}

}  // namespace repro_audit::cuda

#include "strided.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "parallel.hpp"
#include "range.hpp"
#include "repro_audit/sample.hpp"
#include "tiles.hpp"

namespace repro_audit {
namespace {

// Runs of contiguous memory at least this long go to the kernels as they lie; shorter ones are
// packed into a tile first, which costs less than a kernel's start.
constexpr u64 kDirectBytes = 512;

constexpr u64 kAheadBytes = 4096;

// Of a run to come; an address outside the tensor does no harm.
void prefetch(const u8* p, u64 nbytes) {
  for (u64 at = 0; at < std::min<u64>(nbytes, 2048); at += 64) __builtin_prefetch(p + at);
}

// As the public one; dimensions merge only where they are one run in the whole as well, and the
// placement follows.
Strided simplified(const Strided& given, Placement& placement) {
  Strided view{given.data, {}, {}, given.itemsize};
  std::vector<u64> weights;
  for (std::size_t d = 0; d < given.sizes.size(); ++d) {
    if (given.sizes[d] == 1) continue;
    if (!view.sizes.empty() &&
        view.strides.back() == given.strides[d] * static_cast<i64>(given.sizes[d]) &&
        weights.back() == placement.weights[d] * given.sizes[d]) {
      view.sizes.back() *= given.sizes[d];
      view.strides.back() = given.strides[d];
      weights.back() = placement.weights[d];
      continue;
    }
    view.sizes.push_back(given.sizes[d]);
    view.strides.push_back(given.strides[d]);
    weights.push_back(placement.weights[d]);
  }
  // Runs lie along the last dimension, whose neighbours must be neighbours in the stream.
  if (view.sizes.empty() || weights.back() != 1) {
    view.sizes.push_back(1);
    view.strides.push_back(1);
    weights.push_back(1);
  }
  placement.weights = std::move(weights);
  return view;
}

i64 magnitude(i64 stride) { return stride < 0 ? -stride : stride; }

// The dimension to walk together with the last so that whole cache lines are used: for an inner run
// of contiguous memory the one before it, else the one with the smallest step.
std::size_t partner(const Strided& view) {
  const std::size_t last = view.sizes.size() - 1;
  std::size_t best = last - 1;
  if (view.strides[last] == 1) return best;
  for (std::size_t d = last - 1; d-- > 0;) {
    if (view.strides[d] == 0) continue;
    if (view.strides[best] == 0 || magnitude(view.strides[d]) < magnitude(view.strides[best])) {
      best = d;
    }
  }
  return best;
}

// Calls consume(bytes, nbytes, offset in the stream) for parts of the stream that together are it,
// for the tiles of share `part` of `parts`.
template <class Consume>
void for_each_run(const Strided& view, const Placement& placement, unsigned part, unsigned parts,
                  Consume&& consume) {
  const std::size_t rank = view.sizes.size();
  const std::size_t last = rank - 1;
  const u64 item = view.itemsize;
  const bool direct = view.strides[last] == 1 && view.sizes[last] * item >= kDirectBytes;
  const std::size_t rows_dim = rank == 1 ? last : partner(view);
  const Tiling tiling =
      direct ? Tiling{1, view.sizes[last]}
             : Tiling::of(rank == 1 ? 1 : view.sizes[rows_dim], view.sizes[last],
                          rank == 1 ? 0 : view.strides[rows_dim], view.strides[last], item);

  // Tasks: every index of the outer dimensions x tiles of rows; columns are walked inside.
  std::vector<std::size_t> outer;
  u64 tasks = 1;
  const std::vector<u64>& weight = placement.weights;
  for (std::size_t d = 0; d < last; ++d) {
    if (d == rows_dim) continue;
    outer.push_back(d);
    tasks *= view.sizes[d];
  }
  const u64 rows = rank == 1 ? 1 : view.sizes[rows_dim];
  const u64 row_tiles = (rows + tiling.rows - 1) / tiling.rows;
  // One long row is shared out by columns instead.
  const u64 column_tiles = (view.sizes[last] + tiling.columns - 1) / tiling.columns;
  tasks *= row_tiles * column_tiles;

  // The hardware follows a run, and does not foresee the jump to the next.
  const u64 run = view.sizes[last] * item;
  const i64 ahead = direct && rank > 1 ? view.strides[rows_dim] * static_cast<i64>(item) *
                                             static_cast<i64>(kAheadBytes / run + 1)
                                       : 0;

  std::vector<u8> buffer(direct ? 0 : tiling.rows * tiling.pitch(item));
  const u64 share = (tasks + parts - 1) / parts;
  const u64 from = std::min(tasks, part * share);
  const u64 to = std::min(tasks, from + share);
  for (u64 task = from; task < to; ++task) {
    u64 rest = task;
    const u64 column = rest % column_tiles * tiling.columns;
    rest /= column_tiles;
    const u64 row = rest % row_tiles * tiling.rows;
    rest /= row_tiles;
    i64 at = static_cast<i64>(column) * view.strides[last];
    u64 position = placement.origin + column;
    if (rank > 1) {
      at += static_cast<i64>(row) * view.strides[rows_dim];
      position += row * weight[rows_dim];
    }
    for (std::size_t k = outer.size(); k-- > 0;) {
      const std::size_t d = outer[k];
      const u64 index = rest % view.sizes[d];
      rest /= view.sizes[d];
      at += static_cast<i64>(index) * view.strides[d];
      position += index * weight[d];
    }
    const u8* source = view.data + at * static_cast<i64>(item);
    const u64 width = std::min(tiling.columns, view.sizes[last] - column);
    const u64 height = std::min(tiling.rows, rows - row);
    if (direct) {
      if (ahead != 0) prefetch(source + ahead, width * item);
      consume(source, width * item, position * item);
      continue;
    }
    // Neighbouring whole rows are one run of the stream: no gap between them in the tile either.
    const bool joined =
        rank > 1 && rows_dim + 1 == last && width == view.sizes[last] && weight[rows_dim] == width;
    const u64 pitch = joined ? width * item : tiling.pitch(item);
    copy_tile(source, rank == 1 ? 0 : view.strides[rows_dim], view.strides[last], height, width,
              item, buffer.data(), pitch);
    if (joined) {
      consume(buffer.data(), height * pitch, position * item);
    } else {
      const u64 step = rank == 1 ? 0 : weight[rows_dim];
      for (u64 r = 0; r < height; ++r) {
        consume(buffer.data() + r * pitch, width * item, (position + r * step) * item);
      }
    }
  }
}

template <class Part>
Lanes summed(unsigned parts, const Part& work) {
  if (parts <= 1) return work(0);
  std::vector<Lanes> sums(parts);
  run_parallel(parts, [&](unsigned part) { sums[part] = work(part); });
  Lanes total;
  for (const Lanes& sum : sums) total += sum;
  return total;
}

}  // namespace

u64 Strided::numel() const {
  return std::accumulate(sizes.begin(), sizes.end(), u64{1}, std::multiplies<>());
}

Placement Placement::whole(const Strided& view) {
  Placement placement{0, std::vector<u64>(view.sizes.size(), 1)};
  for (std::size_t d = view.sizes.size(); d-- > 1;) {
    placement.weights[d - 1] = placement.weights[d] * view.sizes[d];
  }
  return placement;
}

Strided simplified(Strided view) {
  Placement placement = Placement::whole(view);
  return simplified(std::move(view), placement);
}

Strided reordered(Strided view) {
  std::vector<std::size_t> order(view.sizes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (const std::size_t d : order) {
    if (view.strides[d] >= 0 || view.sizes[d] == 0) continue;
    view.data +=
        static_cast<i64>(view.sizes[d] - 1) * view.strides[d] * static_cast<i64>(view.itemsize);
    view.strides[d] = -view.strides[d];
  }
  // Largest steps outermost, and repetitions (step 0) outside those.
  const auto reach = [&](std::size_t d) { return static_cast<u64>(view.strides[d]) - 1; };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return reach(a) > reach(b); });
  Strided result{view.data, {}, {}, view.itemsize};
  for (const std::size_t d : order) {
    result.sizes.push_back(view.sizes[d]);
    result.strides.push_back(view.strides[d]);
  }
  return simplified(std::move(result));
}

void gather(const Strided& view, u64 first, u64 count, u8* to) {
  const std::size_t last = view.sizes.size() - 1;
  const i64 item = static_cast<i64>(view.itemsize);
  std::vector<u64> index(view.sizes.size());
  u64 rest = first;
  i64 at = 0;
  for (std::size_t d = view.sizes.size(); d-- > 0;) {
    index[d] = rest % view.sizes[d];
    rest /= view.sizes[d];
    at += static_cast<i64>(index[d]) * view.strides[d];
  }
  while (count != 0) {
    const u64 run = std::min(count, view.sizes[last] - index[last]);
    copy_tile(view.data + at * item, 0, view.strides[last], 1, run, view.itemsize, to, 0);
    to += run * view.itemsize;
    count -= run;
    index[last] += run;
    at += static_cast<i64>(run) * view.strides[last];
    for (std::size_t d = last; index[d] == view.sizes[d] && d > 0; --d) {
      at += view.strides[d - 1] - static_cast<i64>(view.sizes[d]) * view.strides[d];
      index[d] = 0;
      ++index[d - 1];
    }
  }
}

void sample(const Strided& given, u64 count, u8* to) {
  const Strided view = simplified(given);
  const u64 numel = view.numel();
  const i64 item = static_cast<i64>(view.itemsize);
  for (u64 i = 0; i < count; ++i, to += item) {
    u64 rest = sample_index(i, count, numel);
    i64 at = 0;
    for (std::size_t d = view.sizes.size(); d-- > 0;) {
      at += static_cast<i64>(rest % view.sizes[d]) * view.strides[d];
      rest /= view.sizes[d];
    }
    std::memcpy(to, view.data + at * item, view.itemsize);
  }
}

Lanes strided_lanes(const Kernels& kernels, const KeyTable& keys, const Strided& view,
                    unsigned threads) {
  return box_lanes(kernels, keys, view, Placement::whole(view), threads);
}

Lanes box_lanes(const Kernels& kernels, const KeyTable& keys, const Strided& given,
                const Placement& given_placement, unsigned threads) {
  if (given.numel() == 0) return {};
  Placement placement = given_placement;
  const Strided view = simplified(given, placement);
  if (view.sizes.size() == 1 && view.strides[0] == 1) {
    return parallel_lanes(kernels, keys, view.data, view.nbytes(), placement.origin * view.itemsize,
                          threads);
  }
  const unsigned parts = worth_threads(view.nbytes(), threads);
  return summed(parts, [&](unsigned part) {
    Lanes sum;
    for_each_run(view, placement, part, parts, [&](const u8* p, u64 nbytes, u64 offset) {
      sum += range_lanes(kernels, keys, p, nbytes, offset);
    });
    return sum;
  });
}

Lanes multiset_lanes(const Kernels& kernels, const MultisetKeys& keys, const Strided& given,
                     unsigned threads) {
  if (given.numel() == 0) return {};
  const Strided view = reordered(given);
  if (view.sizes.size() == 1 && view.strides[0] == 1) {
    const unsigned shares = worth_threads(view.nbytes(), threads);
    const u64 step = (view.sizes[0] + shares - 1) / shares;
    return summed(shares, [&](unsigned part) {
      const u64 from = std::min(view.sizes[0], part * step);
      const u64 count = std::min(view.sizes[0] - from, step);
      return kernels.multiset(view.data + from * view.itemsize, count, view.itemsize, keys);
    });
  }
  const Placement placement = Placement::whole(view);
  const unsigned parts = worth_threads(view.nbytes(), threads);
  return summed(parts, [&](unsigned part) {
    Lanes sum;
    for_each_run(view, placement, part, parts, [&](const u8* p, u64 nbytes, u64) {
      sum += kernels.multiset(p, nbytes / view.itemsize, view.itemsize, keys);
    });
    return sum;
  });
}

}  // namespace repro_audit

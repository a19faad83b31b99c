// From a strided tensor to what a kernel reads of it.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <type_traits>

#include "../../cpp/src/strided.hpp"
#include "repro_audit/cuda/sources.hpp"

namespace repro_audit::cuda {

// Bytes of the largest piece, at most `limit`, that every run of the view is made of at aligned
// addresses: a power of two.
inline u64 piece_bytes(const Strided& view, u64 limit) {
  const std::size_t last = view.sizes.size() - 1;
  u64 bits = reinterpret_cast<u64>(view.data) | limit;
  bits |= view.strides[last] == 1 ? view.sizes[last] * view.itemsize : view.itemsize;
  for (std::size_t d = 0; d < view.sizes.size(); ++d) {
    if (d == last && view.strides[d] == 1) continue;
    bits |= static_cast<u64>(view.strides[d]) * view.itemsize;
  }
  return bits & (~bits + 1);
}

template <int kBytes>
Pieces<kBytes> pieces_of(const Strided& view) {
  Pieces<kBytes> pieces{reinterpret_cast<u64>(view.data), view.nbytes() / kBytes, 0, {}};
  const auto append = [&](u64 size, i64 step) {
    if (pieces.rank == kMaxRank) throw std::length_error("a tensor of more than 64 dimensions");
    const Divider divider =
        pieces.count < kSmallPieces ? Divider::of(static_cast<u32>(size)) : Divider{};
    pieces.axes[pieces.rank++] = {size, step, divider};
  };
  const std::size_t last = view.sizes.size() - 1;
  const bool run = view.strides[last] == 1;
  for (std::size_t d = 0; d < last + (run ? 0 : 1); ++d) {
    append(view.sizes[d], view.strides[d] * static_cast<i64>(view.itemsize));
  }
  const u64 together = (run ? view.sizes[last] : 1) * view.itemsize / kBytes;
  if (run || together > 1) append(together, kBytes);
  return pieces;
}

// Calls use(source) with the pieces of a view, simplified before and not empty, each of at most
// `limit` bytes.
template <class Use>
void with_pieces(const Strided& view, u64 limit, Use&& use) {
  switch (piece_bytes(view, limit)) {
    case 16: return use(pieces_of<16>(view));
    case 8: return use(pieces_of<8>(view));
    case 4: return use(pieces_of<4>(view));
    case 2: return use(pieces_of<2>(view));
    default: return use(pieces_of<1>(view));
  }
}

// Calls use(source) for bytes `offset` ... offset + nbytes - 1 of a stream, the first of them at
// `address`.
template <class Use>
void with_range(u64 address, u64 nbytes, u64 offset, Use&& use) {
  const u64 origin = address - offset;
  const u64 end = offset + nbytes;
  if (origin % 16 == 0) return use(Contiguous<16>{origin, offset, end});
  if (origin % 4 == 0) return use(Contiguous<4>{origin, offset, end});
  if (origin % 2 == 0) return use(Contiguous<2>{origin, offset, end});
  return use(Contiguous<1>{origin, offset, end});
}

// Calls use(width, source) for the elements of a view, not empty, in the order of their memory:
// for what is blind to order. `width` holds an element's bytes as a constant.
template <class Use>
void with_elements(const Strided& given, Use&& use) {
  const Strided view = reordered(given);
  const auto elements = [&](auto width) {
    constexpr int kItem = width;
    const u64 address = reinterpret_cast<u64>(view.data);
    if (view.sizes.size() == 1 && view.strides[0] == 1) {
      if (address % 16 == 0) return use(width, Contiguous<16>{address, 0, view.nbytes()});
      if (address % kItem == 0) return use(width, Contiguous<kItem>{address, 0, view.nbytes()});
      return use(width, Contiguous<1>{address, 0, view.nbytes()});
    }
    if (piece_bytes(view, kItem) == kItem) return use(width, pieces_of<kItem>(view));
    use(width, pieces_of<1>(view));
  };
  switch (view.itemsize) {
    case 1: return elements(std::integral_constant<int, 1>{});
    case 2: return elements(std::integral_constant<int, 2>{});
    case 4: return elements(std::integral_constant<int, 4>{});
    case 8: return elements(std::integral_constant<int, 8>{});
    default: return elements(std::integral_constant<int, 16>{});
  }
}

}  // namespace repro_audit::cuda

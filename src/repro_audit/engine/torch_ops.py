"""The digest and the multiset digest in torch's own integer operations, on any device it has.

For devices without kernels of ours (MPS, XPU, ROCm), and as an engine of its own on the CPU
(`REPRO_AUDIT_ENGINE=torch`), where tests hold it to the vectors. int64 wraps modulo 2^64 in
torch, so every sum is exact; nothing here needs uint64, which some devices lack. Section numbers
are those of `cpp/SPEC.md`. ULP divergence is the CPU's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_audit.engine import reference, views
from repro_audit.engine.by_stream import StreamEngine

if TYPE_CHECKING:
    import torch

_BLOCK_WORDS = 256
_BLOCK_BYTES = 4 * _BLOCK_WORDS
_LOW = 0xFFFFFFFF
_MASK = (1 << 64) - 1
_PIECE_BLOCKS = 1 << 14  # 16 MiB of the stream at a time bounds the temporaries


def _signed(x: int) -> int:
    """The int64 of the same 64 bits."""
    x &= _MASK
    return x - (1 << 64) if x >> 63 else x


def _shifted(x: torch.Tensor, count: int) -> torch.Tensor:
    """x >> count without the sign: torch's shift of int64 copies it."""
    return (x >> count) & ((1 << (64 - count)) - 1)


def _mix(x: torch.Tensor) -> torch.Tensor:
    z = x + _signed(0x9E3779B97F4A7C15)
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _word_keys(base: int, lane: int, device: torch.device) -> torch.Tensor:
    import torch

    j = torch.arange(_BLOCK_WORDS, dtype=torch.int64, device=device)
    return _shifted(_mix(2 * j + _signed(base + lane)), 32) | 1


def _words(data: torch.Tensor) -> torch.Tensor:
    """Bytes, a multiple of 4 of them, as 32-bit words in int64, in whatever order the device has:
    every device of torch's is little-endian where this project runs.
    """
    import torch

    if data.data_ptr() % 4 or data.storage_offset() % 4:
        data = data.clone()
    return data.view(torch.int32).to(torch.int64) & _LOW


def add_stream(data: torch.Tensor, offset: int, key: int, out: torch.Tensor) -> None:
    """Section 5: add the lanes of a flat uint8 tensor, whose bytes stand at byte `offset` of their
    stream, to `out`, two int64 of the same device. Waits for nothing; temporaries of 400 MiB at
    most.
    """
    import torch

    base = reference.mix(key)
    head = offset % _BLOCK_BYTES
    keys = [_word_keys(base, lane, data.device) for lane in (0, 1)]
    at, block = 0, offset // _BLOCK_BYTES
    while at < data.numel():
        piece = data[at : at + _PIECE_BLOCKS * _BLOCK_BYTES - head]
        at += piece.numel()
        tail = -(head + piece.numel()) % _BLOCK_BYTES
        if head or tail:
            piece = torch.nn.functional.pad(piece, (head, tail))
        words = _words(piece).view(-1, _BLOCK_WORDS)
        blocks = torch.arange(block, block + len(words), dtype=torch.int64, device=data.device)
        for lane in (0, 1):
            w = words if lane == 0 else (words >> 16) | ((words & 0xFFFF) << 16)
            b = _mix(2 * blocks + _signed((base ^ reference.BLOCK_SALT) + lane)) | 1
            out[lane] += ((w * keys[lane]).sum(1) * b).sum()
        block += len(words)
        head = 0


def stream_lanes(data: torch.Tensor, offset: int, key: int) -> tuple[int, int]:
    """Section 5: as `add_stream`, from 0; waits for the device."""
    import torch

    total = torch.zeros(2, dtype=torch.int64, device=data.device)
    add_stream(data, offset, key, total)
    lane0, lane1 = (int(x) & _MASK for x in total.tolist())
    return lane0, lane1


def _fold(product: torch.Tensor) -> torch.Tensor:
    return (product ^ _shifted(product, 32)) & _LOW


def multiset_lanes(data: torch.Tensor, itemsize: int, key: int) -> tuple[int, int]:
    """Section 7: the multiset lanes of a flat uint8 tensor of elements of `itemsize` bytes."""
    import torch

    a, b, kappa = reference.multiset_keys(key)
    total = torch.zeros(2, dtype=torch.int64, device=data.device)
    step = _PIECE_BLOCKS * _BLOCK_BYTES
    for at in range(0, data.numel(), step):
        piece = data[at : at + step]
        if itemsize < 4:
            parts = piece.view(-1, itemsize).to(torch.int64)
            halves = [(parts << (8 * torch.arange(itemsize, device=data.device))).sum(1)]
        else:
            words = _words(piece).view(-1, itemsize // 4)
            halves = [words[:, i] for i in range(itemsize // 4)]
        if len(halves) == 1:
            halves.append(torch.zeros_like(halves[0]))
        y = z = torch.zeros_like(halves[0])
        for i in range(0, len(halves), 2):
            lo, hi = halves[i] ^ z, halves[i + 1] ^ y
            y = hi ^ kappa ^ _fold(lo * a)
            z = lo ^ _fold(y * b)
            total[0] += (z * z).sum()
            total[1] += (y * z).sum()
    lane0, lane1 = (int(x) & _MASK for x in total.tolist())
    return lane0, lane1


def flat_bytes(t: torch.Tensor) -> torch.Tensor:
    """The stream of a dense tensor as a flat uint8 tensor: a view where it is contiguous."""
    import torch

    flat = t.detach().contiguous()
    if not flat.numel():
        return flat.new_empty(0, dtype=torch.uint8)
    # A single element counts as contiguous whatever its stride, and is then no view of bytes.
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8)


def gathered(t: torch.Tensor, count: int) -> torch.Tensor:
    """Section 11: the bytes of `count` elements of a dense tensor, on its device."""
    import torch

    places = reference.sample_indices(count, t.numel())
    flat = t.detach().reshape(-1)[torch.tensor(places, dtype=torch.int64, device=t.device)]
    return flat_bytes(flat)


def engine() -> StreamEngine:
    """These functions as an engine on this process's memory."""

    @views.unseen()
    def stream(data: bytes, offset: int, key: int) -> tuple[int, int]:
        return stream_lanes(_tensor(data), offset, key)

    @views.unseen()
    def multiset(data: bytes, itemsize: int, key: int) -> tuple[int, int]:
        return multiset_lanes(_tensor(data), itemsize, key)

    return StreamEngine(stream, multiset)


def _tensor(data: bytes) -> torch.Tensor:
    import torch

    if not data:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)

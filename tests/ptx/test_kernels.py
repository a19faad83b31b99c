"""What nvcc and NVRTC make of the kernels, run as PTX: to the bit what the reference says.

The host's part of each launch is `cupy_kernels`' own. Machine code is made of this PTX, and is not
looked at; neither is what blocks that run at once see of each other's memory.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from repro_audit import _engine
from repro_audit.engine import by_stream, cupy_kernels, reference, reference_ulp
from repro_audit.engine.tags import ITEMSIZES, PARTS, TAGS

from .launches import QUEUE, Device
from .machine import Order

ORDERS: tuple[Order, ...] = ("together", "forward", "backward")
NUMBERS = [dtype for dtype in TAGS if dtype not in PARTS and dtype != "float4_e2m1fn_x2"]


def pattern(nbytes: int, modulus: int = 251) -> bytes:
    return (np.arange(nbytes) % modulus).astype(np.uint8).tobytes()


def noise(nbytes: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(nbytes)


def hexes(lanes: tuple[int, int]) -> list[str]:
    return [f"{lane:016x}" for lane in lanes]


def test_known_runs(device: Device, vectors: dict[str, Any]) -> None:
    # Each is there with two keys, and comes to two of these.
    shifts = itertools.cycle((0, 1, 4, 2, 3, 8, 13))
    for case, shift in zip(vectors["cases"], shifts, strict=False):
        device.memory.clear()
        data, key = pattern(case["nbytes"]), int(case["key"], 16)
        lanes = device.lanes(data, case["offset"], key, shift)
        assert hexes(lanes) == case["lanes"], (case, shift)
    kinds = {name for name, _ in device.launched}
    assert kinds == {cupy_kernels.stream_kernel(f"Contiguous<{n}>") for n in (1, 2, 4, 16)}


@pytest.mark.parametrize("side", ["first", "second"])
def test_streams_that_must_differ(device: Device, vectors: dict[str, Any], side: str) -> None:
    """By the linearity of the lanes: zeros add nothing."""
    case = vectors["must_differ"]
    total = [0, 0]
    for index, value in case[side]:
        lanes = device.lanes(np.float32(value).tobytes(), 4 * index, 0)
        total = [(a + b) % 2**64 for a, b in zip(total, lanes, strict=True)]
    assert hexes((total[0], total[1])) == case[f"lanes_{side}"]


def test_known_multisets(device: Device, vectors: dict[str, Any]) -> None:
    for case in vectors["tags"]:
        device.memory.clear()
        data = pattern(case["nbytes"], 2 if case["tag"] == TAGS["bool"] else 251)
        out = device.sums()
        sizes = (len(data) // case["itemsize"],)
        place = device.memory.put(data)
        cupy_kernels.add_multiset(place, sizes, (1,), case["itemsize"], 0, out, *QUEUE)
        assert hexes(device.added(out)[0]) == case["multiset_lanes"]


@pytest.mark.parametrize("order", ORDERS)
def test_ranges_in_every_grid(device: Device, order: Order) -> None:
    """Of fewer threads than there is work for, and of more; warps that do nothing at all."""
    device.order = order
    for multiprocessors, nbytes, offset in ((1, 80_000, 0), (2, 20_000, 1000), (5, 3000, 7)):
        device.memory.clear()
        device.multiprocessors = multiprocessors
        data = noise(nbytes)
        assert device.lanes(data, offset, 9, offset % 16) == reference.stream_lanes(data, offset, 9)
    assert [blocks for _, blocks in device.launched] == [8, 3, 1]


def test_more_rounds_than_one(device: Device) -> None:
    """A warp makes the keys of 32 blocks at a time."""
    data = noise(64 * 33 * 1024 + 5)
    assert device.lanes(data, 0, 9) == reference.stream_lanes(data, 0, 9)
    assert device.launched[-1][1] == 8


# In items: where the first element is, sizes and strides.
VIEWS: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = [
    (0, (40, 24), (1, 40)),  # transposed
    (0, (7, 33, 5), (165, 5, 1)),  # contiguous
    (0, (17, 12), (64, 1)),  # runs
    (0, (9, 64, 8), (1024, 16, 1)),  # runs of two dimensions
    (0, (6, 1, 50), (0, 3, 1)),  # expanded
    (0, (31,), (3,)),  # every third
    (99, (100,), (-1,)),  # backwards
    (500, (5, 10, 3), (-100, 7, 2)),
    (0, (2, 2, 2, 2, 2, 2, 3), (1, 100, 7, 300, 20, 41, 3)),
    (0, (2,) * 10, tuple(1 << 5 * d % 11 for d in range(10))),
    (0, (1,), (1,)),
    (0, (), ()),
]


def fitted(view: tuple[int, Any, Any], itemsize: int) -> tuple[bytes, int, bytes]:
    """No more bytes than a view reaches, where in them its first element is, and its stream."""
    _, sizes, strides = view
    reach = [stride * (size - 1) for size, stride in zip(sizes, strides, strict=True)]
    low, high = sum(x for x in reach if x < 0), sum(x for x in reach if x > 0)
    data = noise((high - low + 1) * itemsize, itemsize)
    held = np.frombuffer(data, np.uint8)
    first = held.ctypes.data - low * itemsize
    return data, -low * itemsize, by_stream.stream(first, sizes, strides, itemsize)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8, 16])
def test_strided(device: Device, itemsize: int) -> None:
    for i, view in enumerate(VIEWS):
        device.memory.clear()
        device.order = ORDERS[i % 3] if i > 8 else "together"
        data, first, stream = fitted(view, itemsize)
        _, sizes, strides = view
        for shift in (0, itemsize, 3) if i < 2 else (i % 2 * itemsize,):
            place = device.memory.put(data, shift) + first, sizes, strides, itemsize
            out = device.sums(2)
            cupy_kernels.add_strided(*place, 5, out, *QUEUE)
            cupy_kernels.add_multiset(*place, 5, out + 16, *QUEUE)
            assert device.added(out, 2) == [
                reference.stream_lanes(stream, 0, 5),
                reference.multiset_lanes(stream, itemsize, 5),
            ], (view, shift)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8, 16])
def test_multisets_of_ranges(device: Device, itemsize: int) -> None:
    data = noise(itemsize * 2049)
    for width in {16, itemsize, 1}:
        place = device.memory.put(data, width % 16)
        source, held = _engine.multiset_source(place, (2049,), (1,), itemsize)
        assert source == f"Contiguous<{width}>"
        name = cupy_kernels.multiset_kernel(itemsize, source)
        for blocks in (1, 3):
            out = device.sums()
            cupy_kernels._launch(name, blocks, "threads", (held, len(data), 5, out), *QUEUE)
            assert device.added(out)[0] == reference.multiset_lanes(data, itemsize, 5)


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8, 16])
def test_samples(device: Device, itemsize: int) -> None:
    for i, view in enumerate(VIEWS):
        data, first, stream = fitted(view, itemsize)
        elements = [stream[at : at + itemsize] for at in range(0, len(stream), itemsize)]
        place = device.memory.put(data, itemsize) + first, *view[1:], itemsize
        for count in sorted({1, min(7, len(elements)), len(elements)} if i % 3 == 0 else {1}):
            out = device.memory.reserve(count * itemsize, align=16)
            cupy_kernels.sample(*place, count, out, *QUEUE)
            wanted = [elements[at] for at in reference.sample_indices(count, len(elements))]
            assert device.memory.get(out, count * itemsize) == b"".join(wanted)


def test_samples_of_more_than_32_bits_count(device: Device) -> None:
    """There a place is found by divisions of 64 bits, in a function that is called."""
    row = noise(10)
    place = device.memory.put(row), (1 << 20, 5, 1 << 12), (0, 1, 0), 2
    for count in (1, 7, 333):
        out = device.memory.reserve(2 * count, align=16)
        cupy_kernels.sample(*place, count, out, *QUEUE)
        indices = reference.sample_indices(count, 5 << 32)
        wanted = [row[2 * (i >> 12) % 10 :][:2] for i in indices]
        assert device.memory.get(out, 2 * count) == b"".join(wanted)


@pytest.mark.parametrize(("count", "order"), [(3, "backward"), (64, "forward"), (1360, "together")])
def test_tables(device: Device, count: int, order: Order) -> None:
    """Rows of any alignment, empty, of part of a unit, around one, and of several."""
    device.order = order
    sizes = (5, 0, 1024, 0, 8191, 8192, 8193, 1, 0, 300, 17_000)
    rows = []
    for i in range(count):
        nbytes = sizes[(i * i + i // 3) % 11] if i < 30 else i % 3 * 7
        data = noise(nbytes, i)
        rows.append((device.memory.put(data, i % 17, align=32), data))
    out = device.sums(count)
    places = [(place, len(data)) for place, data in rows]
    cupy_kernels.add_table(places, 7, out, *QUEUE)
    wanted = [reference.stream_lanes(data, 0, 7) for _, data in rows]
    assert device.added(out, count) == wanted
    assert device.launched[-1][0] == cupy_kernels.table_kernel(64 if count <= 64 else 1360)


def codes(dtype: str, seed: int) -> np.ndarray:
    """Bit patterns at which zeros, subnormals, infinities and NaNs begin and end, and noise."""
    f = reference_ulp.format_of(TAGS[dtype])
    if f.width == 1:
        every = np.arange(256, dtype=np.uint8)
        return every if dtype != "bool" else every % 2
    bits = 8 * f.width
    powers = [1 << i for i in range(0, bits, max(1, bits // 16))] + [f.infinity, 1 << f.fraction]
    numbers = {x + near for power in powers for x in (power, -power) for near in (-1, 0, 1)}
    numbers |= {x ^ f.sign for x in numbers}
    special = [x % (1 << bits) for x in sorted(numbers)]
    noisy = np.frombuffer(noise(100 * f.width, seed), f.bits)
    return np.concatenate([np.array(special, f.bits), noisy])


@pytest.mark.parametrize("dtype", NUMBERS)
def test_divergence(device: Device, dtype: str) -> None:
    tag, width = TAGS[dtype], ITEMSIZES[dtype]
    f = reference_ulp.format_of(tag)
    a = codes(dtype, 1)
    others = [np.roll(a, 1), a[::-1], np.random.default_rng(2).permutation(a)]
    if f.kind in {"ieee", "fn", "fnuz"}:
        others.append(a ^ np.array(f.sign, f.bits))
    first, second = np.concatenate([a] * len(others)), np.concatenate(others)
    near = first.copy()
    near[::37] ^= np.array(1, f.bits)
    for x, y, shift in (
        (first, second, 0),
        (first[: 2 * len(a)], second[: 2 * len(a)], width),
        (first[:-1], near[:-1], 0),
        (first[:37], first[:37], 0),
        (first[:1], second[:1], 0),
    ):
        device.memory.clear()
        found = device.compare(tag, x.tobytes(), y.tobytes(), shift)
        wanted = reference_ulp.divergence(x, y, f)
        assert repr(found) == repr(wanted)


# nvcc compiles for the oldest capability and the newest by different compilers.
DIGESTS = [("nvcc", architecture, ("digest",)) for architecture in ("80", "120")]
FEW = ("float32", "float64", "bfloat16", "float8_e4m3fn", "int64")


@pytest.mark.parametrize("other_device", DIGESTS, indirect=True, ids=["nvcc-80", "nvcc-120"])
def test_digests_elsewhere(other_device: Device) -> None:
    for nbytes, offset, shift in ((40_000, 1024, 0), (5000, 7, 3)):
        data = noise(nbytes)
        wanted = reference.stream_lanes(data, offset, 9)
        assert other_device.lanes(data, offset, 9, shift) == wanted
    data, first, stream = fitted(VIEWS[2], 2)
    out = other_device.sums()
    place = other_device.memory.put(data) + first
    cupy_kernels.add_strided(place, *VIEWS[2][1:], 2, 5, out, *QUEUE)
    assert other_device.added(out) == [reference.stream_lanes(stream, 0, 5)]


@pytest.mark.parametrize("other_device", [("cupy", "120", FEW)], indirect=True, ids=["cupy-120"])
@pytest.mark.parametrize("dtype", FEW)
def test_divergence_elsewhere(other_device: Device, dtype: str) -> None:
    x = codes(dtype, 1)
    y = np.roll(x, 1)
    found = other_device.compare(TAGS[dtype], x.tobytes(), y.tobytes())
    wanted = reference_ulp.divergence(x, y, reference_ulp.format_of(TAGS[dtype]))
    assert repr(found) == repr(wanted)

"""What the digest promises: no split, stride or thread count changes it, and any change shows."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro_audit import _engine
from repro_audit.engine import by_stream, choice, fingerprint

NATIVE = _engine.engines()
BOUNDARIES = sorted(
    {
        max(0, n + d)
        for n in (0, 4, 8, 32, 64, 512, 1024, 2048, 4096, 65536, 262144, 4 * 65536 + 1024)
        for d in (-4, -1, 0, 1, 4)
    }
)
QUICK = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, 300_000, np.uint8)


def add(*lanes: tuple[int, int]) -> tuple[int, int]:
    return sum(x for x, _ in lanes) % 2**64, sum(y for _, y in lanes) % 2**64


@pytest.mark.parametrize("name", NATIVE)
def test_every_length_at_a_boundary(name: str, noise: np.ndarray) -> None:
    choice.select(name)
    try:
        for nbytes in BOUNDARIES:
            for skip, offset in ((0, 0), (1, 0), (3, 1021), (2, 5)):
                address = noise.ctypes.data + skip
                expected = by_stream.of_reference().lanes(address, nbytes, offset)
                assert _engine.lanes(address, nbytes, offset) == expected, (nbytes, skip, offset)
    finally:
        choice.select(None)


@QUICK
@given(
    cuts=st.lists(st.integers(0, 9000), max_size=6),
    start=st.integers(0, 5000),
    key=st.sampled_from([0, 1, 2**64 - 1]),
)
def test_parts_add_up_to_the_whole(
    each_engine: str, noise: np.ndarray, cuts: list[int], start: int, key: int
) -> None:
    engine = choice.engine()
    edges = sorted({0, 9000, *cuts})
    whole = engine.lanes(noise.ctypes.data, 9000, start, key)
    parts = [engine.lanes(noise.ctypes.data + a, b - a, start + a, key) for a, b in pairwise(edges)]
    assert add(*parts) == whole


@pytest.mark.parametrize("name", NATIVE)
def test_threads_change_nothing(name: str) -> None:
    data = np.random.default_rng(1).integers(0, 256, (9 << 20) + 5, np.uint8)
    address, nbytes = data.ctypes.data + 1, data.nbytes - 1
    columns, rows = 4096, nbytes // 4096
    choice.select(name)
    try:
        one = _engine.digest(address, nbytes, 2, 0, 1)
        turned = _engine.digest_strided(address, (columns, rows), (1, columns), 1, 2, 0, 1)
        bag = _engine.multiset(address, (nbytes,), (1,), 1, 0, 1)
        for threads in (0, 2, 3, 7):
            assert _engine.digest(address, nbytes, 2, 0, threads) == one
            strided = _engine.digest_strided(
                address, (columns, rows), (1, columns), 1, 2, 0, threads
            )
            assert strided == turned
            assert _engine.multiset(address, (nbytes,), (1,), 1, 0, threads) == bag
    finally:
        choice.select(None)
    if name == NATIVE[0]:
        copy = np.ascontiguousarray(data[1 : 1 + rows * columns].reshape(rows, columns).T)
        assert _engine.digest(copy.ctypes.data, copy.nbytes, 2) == turned


def views_of(base: np.ndarray) -> st.SearchStrategy[np.ndarray]:
    """Permuted, sliced, reversed and expanded views."""

    @st.composite
    def draw_view(draw: Any) -> np.ndarray:
        sizes = draw(st.lists(st.integers(1, 7), min_size=1, max_size=4))
        if draw(st.booleans()):
            sizes[draw(st.integers(0, len(sizes) - 1))] *= 40
        a = base[: int(np.prod(sizes))].reshape(sizes)
        a = a.transpose(draw(st.permutations(range(a.ndim))))
        for dim in range(a.ndim):
            step = draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2]))
            a = a[(slice(None),) * dim + (slice(None, None, step),)]
        if draw(st.booleans()):
            dim = draw(st.integers(0, a.ndim))
            a = np.broadcast_to(np.expand_dims(a, dim), (*a.shape[:dim], 3, *a.shape[dim:]))
        return a

    return draw_view()


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8, 16])
@QUICK
@given(data=st.data())
def test_strides_change_nothing(
    each_engine: str, noise: np.ndarray, itemsize: int, data: st.DataObject
) -> None:
    dtype = {1: "u1", 2: "u2", 4: "u4", 8: "u8", 16: "c16"}[itemsize]
    base = np.resize(noise, 7**4 * 40 * itemsize).view(dtype)
    a = data.draw(views_of(base))
    c = np.ascontiguousarray(a)
    engine = choice.engine()
    strides = tuple(stride // itemsize for stride in a.strides)
    ours = engine.digest_strided(a.ctypes.data, a.shape, strides, itemsize, 7)
    assert ours == _engine.digest(c.ctypes.data, c.nbytes, 7)
    bag = engine.multiset(a.ctypes.data, a.shape, strides, itemsize)
    assert bag == _engine.multiset(c.ctypes.data, (c.size,), (1,), itemsize)


@QUICK
@given(nbits=st.integers(1, 3), data=st.data())
def test_flipped_bits_show(
    each_engine: str, noise: np.ndarray, nbits: int, data: st.DataObject
) -> None:
    a = noise[:5000].copy()
    before = choice.engine().digest(a.ctypes.data, a.nbytes, 2)
    bits = data.draw(st.sets(st.integers(0, 8 * a.nbytes - 1), min_size=nbits, max_size=nbits))
    for bit in bits:
        a[bit // 8] ^= 1 << bit % 8
    assert choice.engine().digest(a.ctypes.data, a.nbytes, 2) != before


@QUICK
@given(i=st.integers(0, 1249), j=st.integers(0, 1249))
def test_a_swap_shows_but_not_in_the_multiset(
    each_engine: str, noise: np.ndarray, i: int, j: int
) -> None:
    a = noise[:5000].view(np.uint32).copy()
    before, bag = fingerprint(a), choice.engine().multiset(a.ctypes.data, (1250,), (1,), 4)
    swapped = bool(a[i] != a[j])
    a[i], a[j] = a[j], a[i]
    assert (fingerprint(a) != before) == swapped
    assert choice.engine().multiset(a.ctypes.data, (1250,), (1,), 4) == bag


def test_a_sign_a_rotation_a_length_and_a_dtype_show(each_engine: str) -> None:
    a = np.ones(4096, np.float32)
    seen = {fingerprint(a).digest, fingerprint(a[:-1]).digest, fingerprint(a.view("i4")).digest}
    for i in (0, 1, 4095):
        b = a.copy()
        b[i] = -1.0
        seen.add(fingerprint(b).digest)
    ramp = np.arange(4096, dtype=np.float32)
    seen |= {fingerprint(ramp).digest, fingerprint(np.roll(ramp, 1)).digest}
    zeros = np.zeros(4096, np.float32)
    seen |= {fingerprint(zeros).digest, fingerprint(-zeros).digest}
    assert len(seen) == 10


def test_keys_give_other_digests(each_engine: str, noise: np.ndarray) -> None:
    digests = {choice.engine().digest(noise.ctypes.data, 100, 2, key) for key in (0, 1, 2**63)}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: _engine.digest(0, 1, 2), ValueError),
        (lambda: _engine.digest(-1, 1, 2), OverflowError),
        (lambda: _engine.digest(1, 2), TypeError),
        (lambda: _engine.digest("x", 1, 2), TypeError),
        (lambda: _engine.digest_strided(0, (1,), (1,), 4, 2), ValueError),
        (lambda: _engine.digest_strided(64, (1, 2), (1,), 4, 2), ValueError),
        (lambda: _engine.digest_strided(64, (-1,), (1,), 4, 2), ValueError),
        (lambda: _engine.digest_strided(64, (2**62, 8), (0, 0), 4, 2), ValueError),
        (lambda: _engine.digest_strided(64, (1,), (1,), 3, 2), ValueError),
        (lambda: _engine.digest_strided(64, (2**40, 2**20), (0, 0), 8, 2), ValueError),
        (lambda: _engine.digest_strided(64, (3,), (2,), 4, 2, 0, 0, 83), ValueError),
        (lambda: _engine.digest_strided(64, (2**40,), (2**40,), 4, 2, 0, 0, 83), ValueError),
        (lambda: _engine.digest_strided(64, 5, (1,), 4, 2), TypeError),
        (lambda: _engine.digest_strided(64, ("a",), (1,), 4, 2), TypeError),
        (lambda: _engine.lanes(0, 1, 0), ValueError),
        (lambda: _engine.multiset(0, (1,), (1,), 4), ValueError),
        (lambda: _engine.ulp(64, (), 64, (), (), 15), ValueError),
        (lambda: _engine.ulp(64, (), 64, (), (), 7, 12), ValueError),
        (lambda: _engine.ulp(64, (), 64, (), (), 99), ValueError),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        call()


def test_empty_streams_need_no_address(each_engine: str) -> None:
    engine = choice.engine()
    empty = engine.digest(0, 0, 12)
    assert engine.digest_strided(0, (0, 2**62, 8), (1, 1, 1), 4, 12) == empty
    assert engine.multiset(0, (3, 0), (1, 1), 4) == (0, 0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_digest_in_a_forked_child() -> None:
    """No threads outlive a call, so a child forked after one can make its own."""
    data = np.zeros(16 << 20, np.uint8)
    expected = _engine.digest(data.ctypes.data, data.nbytes, 2, 0, 2)
    child = os.fork()
    if child == 0:
        same = _engine.digest(data.ctypes.data, data.nbytes, 2, 0, 2) == expected
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def _repeated(piece: np.ndarray, nbytes: int) -> bytes:
    """The digest of `piece` again and again up to `nbytes`: the sum of its lanes at each place."""
    sums = [0, 0]
    for at in range(0, nbytes, piece.nbytes):
        found = _engine.lanes(piece.ctypes.data, min(piece.nbytes, nbytes - at), at)
        sums = [sums[0] + found[0], sums[1] + found[1]]
    return _engine.finalize(sums[0] % 2**64, sums[1] % 2**64, nbytes, 2)


def test_more_elements_than_32_bits_count() -> None:
    """4 GiB and more without as much memory: strides of 0."""
    piece = np.arange(1 << 20).astype(np.uint8)
    sizes = ((1 << 12) + 1, 1 << 20)
    found = _engine.digest_strided(piece.ctypes.data, sizes, (0, 1), 1, 2)
    assert found == _repeated(piece, sizes[0] * sizes[1])
    one = np.full(1, 7, np.uint8)
    nbytes = (1 << 32) + 5
    found = _engine.digest_strided(one.ctypes.data, (nbytes,), (0,), 1, 2)
    assert found == _repeated(np.full(1 << 20, 7, np.uint8), nbytes)

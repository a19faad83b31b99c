"""Which bytes of a storage were written: against a map of every byte."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro_audit.capture import memory, written
from repro_audit.capture.memory import UnwrittenMemory


def bytes_of(tensor, nbytes):
    """One bool for each byte of the storage: whether the tensor has it."""
    found = np.zeros(nbytes, bool)
    size = tensor.element_size()
    places = np.full(tuple(tensor.shape), tensor.storage_offset())
    for dim, (n, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        places += (np.arange(n) * stride).reshape(-1, *[1] * (tensor.dim() - dim - 1))
    for byte in range(size):
        found[places.ravel() * size + byte] = True
    return found


@st.composite
def parts(draw, nbytes):
    """A type, sizes, strides and an offset that fit into a storage."""
    dtype = draw(st.sampled_from([torch.uint8, torch.int16, torch.float32, torch.complex64]))
    room = nbytes // dtype.itemsize
    sizes, strides = [], []
    left = room - 1
    for _ in range(draw(st.integers(0, 4))):
        stride = draw(st.integers(0, max(0, left)))
        most = left // stride + 1 if stride else 3
        sizes.append(draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, min(most, 9))))
        strides.append(stride)
        left -= max(0, sizes[-1] - 1) * stride
    return dtype, sizes, strides, draw(st.integers(0, left))


def part(storage, dtype, sizes, strides, offset):
    return torch.empty(0, dtype=dtype).set_(storage, offset, sizes, strides)


@pytest.fixture(params=["ranges", "maps", "both", "no room"])
def kept(request, monkeypatch):
    few, many, largest = {
        "ranges": (10**6, 10**6, 1 << 24),
        "maps": (0, 0, 1 << 24),
        "both": (3, 10, 1 << 24),
        "no room": (3, 10**6, 20),
    }[request.param]
    monkeypatch.setattr(written, "_FEW", few)
    monkeypatch.setattr(written, "_MANY", many)
    monkeypatch.setattr(written, "LARGEST_MAP", largest)


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("nbytes", [96, 200])
def test_every_byte_counts(nbytes):
    # `set_` of what torch made is no write; 96 is divided by much, 200 by less.
    @given(data=st.data())
    @settings(deadline=None, max_examples=60)
    def check(data):
        unwritten = UnwrittenMemory(poison=None)
        whole = torch.empty(nbytes, dtype=torch.uint8)
        storage = unwritten.note(whole)
        written = np.zeros(nbytes, bool)
        for _ in range(data.draw(st.integers(1, 12))):
            tensor = part(storage, *data.draw(parts(nbytes)))
            its = bytes_of(tensor, nbytes)
            if data.draw(st.booleans()):
                unwritten.wrote(tensor)
                written |= its
            else:
                assert unwritten.holds(tensor) == (not written[its].all())
            assert (storage._cdata in unwritten.unwritten) == (not written.all())
        assert unwritten.holds([whole]) == (not written.all())
        # What is left, from its end on.
        for at in np.flatnonzero(~written)[::-1]:
            assert storage._cdata in unwritten.unwritten
            unwritten.wrote(whole[at : at + 1])
        assert storage._cdata not in unwritten.unwritten

    check()


@pytest.mark.usefixtures("kept")
def test_memory_that_grows_or_shrinks_keeps_what_is_still_there():
    unwritten = UnwrittenMemory(poison=None)
    whole = torch.empty(64, dtype=torch.uint8)
    storage = unwritten.note(whole)
    unwritten.wrote(whole[0:48:2])
    storage.resize_(128)
    grown = part(storage, torch.uint8, [128], [1], 0)
    assert not unwritten.holds(grown[0:48:2])
    assert unwritten.holds(grown[0:50:2])
    unwritten.wrote(grown[1:64:2])
    unwritten.wrote(grown[48:64])
    assert unwritten.holds(grown)
    assert not unwritten.holds(grown[:64])
    storage.resize_(32)
    assert unwritten.holds(whole)
    storage.resize_(64)
    assert not unwritten.holds(whole[:32])
    assert unwritten.holds(whole)
    storage.resize_(0)
    unwritten.wrote(grown)
    assert storage._cdata in unwritten.unwritten


def test_parts_that_are_too_many_to_tell_leave_the_mark(monkeypatch):
    monkeypatch.setattr(written, "LARGEST_MAP", 1 << 10)
    unwritten = UnwrittenMemory(poison=None)
    whole = torch.empty(1 << 14)
    storage = unwritten.note(whole)
    for at in range(2):
        unwritten.wrote(whole[at::2])
    assert unwritten.holds(whole)
    assert unwritten.holds(whole[::2])
    # Half a row at a time is few enough: they are large.
    rows = whole.view(128, 128)
    for half in (rows[:, :64], rows[:, 64:]):
        unwritten.wrote(half)
        assert not unwritten.holds(half)
    assert storage._cdata not in unwritten.unwritten


def test_pieces_in_any_order_become_a_map_once_they_are_many():
    unwritten = UnwrittenMemory(poison=None)
    whole = torch.empty(1 << 13, 2)
    storage = unwritten.note(whole)
    order = [*range(0, 1 << 13, 2), *range(1, 1 << 13, 2)]
    for at in order:
        assert unwritten.holds(whole[at])
        unwritten.wrote(whole[at])
        assert not unwritten.holds(whole[at])
    assert storage._cdata not in unwritten.unwritten


def test_maps_of_freed_memory_are_forgotten(monkeypatch):
    monkeypatch.setattr(memory, "_MAPS", 1 << 15)
    unwritten = UnwrittenMemory(poison=None)
    for _ in range(500):
        whole = torch.empty(1 << 10)
        unwritten.note(whole)
        unwritten.wrote(whole[::2])
    assert len(unwritten.unwritten) < 50


def test_maps_take_no_more_than_they_may(monkeypatch):
    monkeypatch.setattr(memory, "_MAPS", 4 << 12)
    unwritten = UnwrittenMemory(poison=None)
    whole = [torch.empty(1 << 12) for _ in range(9)]
    for tensor in whole:
        unwritten.note(tensor)
        unwritten.wrote(tensor[::2])
    # As many as there is room for are known; the others count as unwritten.
    assert [unwritten.holds(tensor[::2]) for tensor in whole] == [False] * 4 + [True] * 5
    unwritten.wrote(whole[0])
    unwritten.wrote(whole[8][::2])
    assert not unwritten.holds(whole[8][::2])


def test_threads_fill_parts_of_the_same_memory():
    unwritten = UnwrittenMemory(poison=None)
    whole = torch.empty(4, 2000)
    storage = unwritten.note(whole)

    def fill(number):
        for at in range(number, 2000, 4):
            unwritten.wrote(whole[:, at])
            assert not unwritten.holds(whole[:, at])

    threads = [threading.Thread(target=fill, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage._cdata not in unwritten.unwritten

"""Unwritten memory that indices, masks and moves fill piece by piece: against NaNs in its twin."""

from __future__ import annotations

import random
import threading

import pytest
import torch
from torch import nn

from repro_audit.capture import pieces, written
from repro_audit.model import SiteKey


def taints(run):
    return [e.op.split(".")[1] for e in run.seen if e.tainted]


def some(choose, n):
    """Indices into a dimension of n, from none to more than it has, also from behind."""
    return torch.tensor([choose.randrange(-n, n) for _ in range(choose.randrange(n + 2))]).long()


def writing(choose, tensor):
    """A call that overwrites some of a tensor of two dimensions; of any twin the same."""
    rows, columns = tensor.shape
    count = choose.randrange(5)
    n = min(rows, columns)
    pairs = torch.tensor([[choose.randrange(n) for _ in range(2)] for _ in range(count)]).long()
    pairs = pairs.reshape(count, 2)
    row, column = some(choose, rows), some(choose, columns)
    mask = torch.tensor([[choose.random() < 0.4 for _ in range(columns)] for _ in range(rows)])
    one = torch.tensor(1.0)
    at = choose.randrange(n)
    few = torch.tensor([choose.randrange(rows) for _ in range(columns)])[None]
    return choose.choice(
        [
            lambda x: x.index_put_((pairs[:, 0], pairs[:, 1]), one),
            lambda x: x.__setitem__((slice(None), column), 1.0),
            lambda x: x.index_put_((row[:, None], column), one),
            lambda x: x.__setitem__(mask, 1.0),
            lambda x: x.__setitem__((mask[:, 0], at), 1.0),
            lambda x: x.__setitem__(torch.tensor(at), 1.0),
            lambda x: x.index_copy_(0, row % rows, torch.ones(len(row), columns)),
            lambda x: x.index_fill_(1, column, 1.0),
            lambda x: x.index_fill_(-1, column[:1].reshape(-1), 1.0),
            lambda x: x.scatter_(0, few, 1.0),
            lambda x: x.scatter_(-2, few[:, : columns - 1], torch.ones(1, columns)),
            lambda x: x.masked_fill_(mask, 1.0),
            lambda x: x.masked_fill_(mask[:1], one),
            lambda x: x.masked_scatter_(mask, torch.ones(rows, columns)),
            lambda x: x.put_(row, torch.ones(len(row))),
            lambda x: x[:, :1].fill_(1.0),
            lambda x: x[at].copy_(torch.ones(columns)),
        ]
    )


def shapes(choose):
    """A function that makes a tensor of two dimensions of one of a number of elements."""
    return choose.choice(
        [
            lambda x: x[:20].view(4, 5),
            lambda x: x[4:].view(4, 5).t(),
            lambda x: x.view(4, 6)[:, 1::2],
            lambda x: x.as_strided((3, 3), (7, 2), 1),
            lambda x: x.view(3, 8)[1:],
        ]
    )


def moving(choose):
    """Parts of two pieces of memory, the first to be copied to the second."""
    begin, at = choose.randrange(0, 12, 2), choose.randrange(12, 18)
    begin = min(begin, at - 6)
    return choose.choice(
        [
            lambda x, other: (x[begin : begin + 6], x[at : at + 6]),
            lambda x, other: (x[at : at + 6], x[begin : begin + 6]),
            lambda x, other: (x[begin : begin + 6], other.view(4, 6)),
            lambda x, other: (x[:12].view(6, 2), other[::2].view(2, 6).t()),
            lambda x, other: (other, x),
        ]
    )


def _whole(tensor):
    return tensor if tensor._base is None else tensor._base


def program(choose, expected):
    memory, other = torch.empty(24), torch.empty(24)
    twin, another = torch.full((24,), torch.nan), torch.full((24,), torch.nan)
    for _ in range(12):
        if choose.random() < 0.35:
            parts = moving(choose)
            source, target = parts(twin, another)
            # To memory that was all written before it is a reader.
            if source.isnan().any() and not _whole(target).isnan().any():
                continue
            target.copy_(source)
            source, target = parts(memory, other)
            target.copy_(source)
        else:
            shape = shapes(choose)
            write = writing(choose, shape(twin))
            for tensor in (memory, twin):
                write(shape(tensor))
        shape = shapes(choose)
        row = choose.randrange(3)
        for tensor, like in ((memory, twin), (other, another)):
            shape(tensor)[:row].neg()
            expected.append(bool(shape(like)[:row].isnan().any()))


@pytest.mark.parametrize("few", [0, 16])
def test_a_reader_is_marked_where_its_twin_has_a_nan(record, monkeypatch, few):
    monkeypatch.setattr(written, "_FEW", few)
    expected: list[bool] = []

    def work():
        for seed in range(40):
            program(random.Random(seed), expected)

    run = record(work)
    assert [e.tainted for e in run.ops("aten.neg")] == expected
    # What overwrites, or only moves, is no reader.
    assert set(taints(run)) == {"neg"}


def circular():
    return nn.Conv3d(1, 1, 3, padding=2, padding_mode="circular")(torch.ones(1, 1, 6, 6, 6)) * 2


def inverse():
    order = torch.randperm(64)
    back = torch.empty_like(order)
    back[order] = torch.arange(64)
    return torch.ones(64)[back] * 2


def rectified():
    for layer in (nn.RReLU(), nn.RReLU().eval(), nn.RReLU(inplace=True)):
        x = torch.randn(4, requires_grad=True)
        layer(x * 1).sum().backward()


def scalars():
    torch.empty(()).index_fill_(0, torch.tensor([0]), 1.0).neg()
    torch.empty(()).scatter_(0, torch.tensor(0), 1.0).neg()
    torch.empty(()).masked_fill_(torch.tensor(True), 1.0).neg()
    torch.empty(3).index_put_((torch.tensor([0, 1, 2]),), torch.tensor(1.0)).neg()


def refused():
    memory = torch.empty(4)
    for wrong in (torch.tensor([9]), torch.zeros(2, 3, dtype=torch.bool)):
        with pytest.raises(IndexError):
            memory[wrong] = 1.0
    memory.fill_(1).neg()


@pytest.mark.parametrize("work", [circular, inverse, rectified, scalars, refused])
def test_what_is_filled_by_indices_is_nobodys_to_mark(record, work):
    assert taints(record(work)) == []


def test_what_adds_reads(record):
    def work():
        rows = torch.arange(4)
        torch.empty(4).index_put_((rows,), torch.ones(4), accumulate=True)
        torch.empty(4).put_(rows, torch.ones(4), accumulate=True)
        torch.empty(4).scatter_(0, rows, 1.0, reduce="add")
        torch.empty(4).index_put_((rows,), torch.empty(4))

    assert taints(record(work)) == ["index_put_", "put_", "scatter_", "index_put_"]


def test_what_completes_memory_is_fingerprinted_and_has_no_such_input(record):
    order = torch.randperm(8)

    def work():
        back = torch.empty_like(order)
        back[order[:4]] = torch.arange(4)
        back[order[4:]] = torch.arange(4, 8)
        return back

    def polluted(filling):
        held = [torch.full((8,), filling) for _ in range(64)]
        del held
        return work()

    key = SiteKey(0, "forward", "", "aten.index_put_.default", 1)
    one, other = (record(lambda n=n: polluted(n), capture=(key,)) for n in (3, 5))
    (first, second), (_, again) = (run.ops("aten.index_put_") for run in (one, other))
    assert first.digests == [None]
    assert None not in second.digests
    assert second.outputs == again.outputs
    inputs = [
        [row[1:] for row in run.sink.kept["i"] if row[0] == event.index]
        for run, event in ((one, second), (other, again))
    ]
    assert inputs[0] == inputs[1] != []


def test_what_several_threads_fill_is_not_compared_until_it_is_read(record):
    """The last to begin need not be the last to end."""

    def work():
        memory = torch.empty(8, 2)
        turns = [threading.Event() for _ in range(3)]

        def fill(first):
            turns[first].wait()
            memory.index_put_((torch.arange(first, 8, 2),), torch.ones(2))
            turns[first + 1].set()
            turns[2].wait()

        threads = [threading.Thread(target=fill, args=(first,)) for first in (0, 1)]
        for thread in threads:
            thread.start()
        turns[0].set()
        for thread in threads:
            thread.join()
        return memory + 1

    run = record(work)
    assert [e.digests for e in run.ops("aten.index_put_")] == [[None], [None]]
    assert taints(run) == []


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: x.copy_(torch.empty(5)), RuntimeError),
        (lambda x: x.masked_fill_(torch.zeros(4, dtype=torch.bfloat16), 1.0), RuntimeError),
        (lambda x: x.masked_fill_(torch.zeros(3, dtype=torch.bool), 1.0), RuntimeError),
        (lambda x: x.put_(torch.ones(2), torch.ones(2)), RuntimeError),
        (lambda x: x.index_put_((torch.tensor([9]),), torch.tensor(1.0)), IndexError),
        (lambda x: x.index_fill_(3, torch.tensor([0]), 1.0), IndexError),
        (lambda x: x.scatter_(0, torch.tensor([7]), 1.0), (IndexError, RuntimeError)),
        (lambda x: x.view([1] * 63 + [4]).copy_(torch.empty(4)), None),
        (lambda x: x.masked_fill_(torch._efficientzerotensor(4, dtype=torch.bool), 1.0), None),
    ],
)
def test_what_does_not_fit_is_for_the_operator_to_refuse(record, call, error):
    def work():
        memory = torch.empty(4)
        if error is None:
            call(memory)
            return
        with pytest.raises(error) as caught:
            call(memory)
        assert "pieces.py" not in str(caught.traceback[-1].path)

    record(work)


class Elsewhere:
    """Indices of a device, which nothing may wait for."""

    def __init__(self, *shape, dtype=torch.long):
        self.shape, self.dtype = torch.Size(shape), dtype

    def numel(self):
        return self.shape.numel()


@pytest.mark.parametrize(
    ("name", "args", "all_of_it"),
    [
        ("index_put_.default", ([Elsewhere(4)], 1.0), True),
        ("index_put_.default", ([Elsewhere(3)], 1.0), False),
        ("index_put_.default", ([None, Elsewhere(5)], 1.0), True),
        ("index_put_.default", ([Elsewhere(4, 1), Elsewhere(5)], 1.0), True),
        ("index_put_.default", ([Elsewhere(4), Elsewhere(4)], 1.0), False),
        ("index_put_.default", ([Elsewhere(4, dtype=torch.bool)], 1.0), False),
        ("index_put_.default", ([Elsewhere(4), Elsewhere(3)], 1.0), False),
        ("_index_put_impl_.default", ([Elsewhere(4)], 1.0), True),
        ("index_copy_.default", (1, Elsewhere(5), 1.0), True),
        ("index_fill_.int_Scalar", (1, Elsewhere(4), 1.0), False),
        ("scatter_.value", (0, Elsewhere(4, 5), 1.0), True),
        ("scatter_.value", (0, Elsewhere(4, 4), 1.0), False),
        ("put_.default", (Elsewhere(20), 1.0, False), True),
        ("put_.default", (Elsewhere(19), 1.0), False),
        ("masked_fill_.Scalar", (Elsewhere(4, 5, dtype=torch.bool), 1.0), False),
    ],
)
def test_indices_that_cannot_be_read_count_by_their_number(name, args, all_of_it):
    found = pieces.overwritten(f"aten.{name}", (torch.empty(4, 5), *args))
    assert found is (... if all_of_it else None)

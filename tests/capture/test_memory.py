"""Memory of `torch.empty`: who reads it, and what must not be mistaken for a result."""

from __future__ import annotations

import ctypes
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from repro_audit.capture import operators
from repro_audit.model import SiteKey


def taints(run):
    return [e.op for e in run.seen if e.tainted]


def test_a_reader_of_unwritten_memory_is_marked(record):
    def work():
        torch.empty(4) + 1
        torch.empty(4).fill_(1).add(1)
        torch.zeros(4) + 1

    run = record(work)
    assert taints(run) == ["aten.add.Tensor"]
    assert run.ops("aten.add.Tensor", tainted=True)[0].call_index == 0


def of_an_array():
    out = torch.empty(6, 4)
    out.numpy()[:] = np.arange(24, dtype=np.float32).reshape(6, 4) + 1.5
    out[0] = 7.0
    return out * 2


def by_its_address():
    out = torch.empty(1000)
    ctypes.memset(out.data_ptr(), 0x41, 4000)
    return out.sum()


@pytest.mark.parametrize("work", [of_an_array, by_its_address])
def test_what_something_else_wrote_is_nobodys_to_mark(record, work):
    assert taints(record(work)) == []


def test_what_something_else_wrote_in_part_is_marked(record):
    def work():
        out = torch.empty(1000)
        out.numpy()[:500] = 7.5
        return out * 2

    assert taints(record(work)) == ["aten.mul.Tensor"]


def test_freed_memory_is_nobodys(record):
    def work():
        for _ in range(3000):
            torch.empty(16)
        for _ in range(50):
            torch.ones(4).mul(2)
            torch.arange(16).view(4, 4).sum()

    run = record(work)
    assert taints(run) == []
    assert len(run.recorder.memory.unwritten) < 3000


def rows():
    out = torch.empty(6, 4)
    for at in torch.randperm(6).tolist():
        out[at] = torch.ones(4)
    return out * 2


def columns():
    out = torch.empty(100, 5)
    for at in range(5):
        out[:, at] = torch.ones(100)
    return out * 2


def steps():
    out = torch.empty(4, 9)
    for at in range(3):
        out[..., at::3] = 1.0
    return out * 2


def slices():
    out = torch.empty(4, dtype=torch.long)  # torch_geometric.utils.cumsum
    out[:1] = 0
    torch.cumsum(torch.arange(3), 0, out=out[1:])
    return out * 2


def halves():
    out = torch.empty(8)
    out.view(torch.uint8)[:16] = 0
    out[4:].view(torch.int64).zero_()
    return out * 2


def channels_last():
    out = torch.empty(2, 3, 4, 4, memory_format=torch.channels_last)
    out[:, :, :2].fill_(1)
    out[:, :, 2:].fill_(1)
    return out * 2


def complexes():
    out = torch.empty(4, dtype=torch.complex64)
    out.real.fill_(1)
    out.imag.fill_(1)
    return out.conj() * 2


def what_was_written():
    out = torch.empty(4, 8)
    out[:2] = 1.0
    out[3, ::2] = 1.0
    out[:1].expand(5, 8) * 2
    out[1:1] * 2
    out[3, ::4].sum()
    return out[:2].t().contiguous() * 2


def gaps():
    out = torch.empty_strided((4, 3), (5, 1))
    out.fill_(1)
    return out * 2


def quasirandom():
    engine = torch.quasirandom.SobolEngine(2)
    return engine.draw(4) + engine.draw(4)


@pytest.mark.parametrize(
    "work",
    [
        rows,
        columns,
        steps,
        slices,
        halves,
        channels_last,
        complexes,
        what_was_written,
        gaps,
        quasirandom,
    ],
)
def test_what_was_written_piece_by_piece_is_nobodys_to_mark(record, work):
    assert taints(record(work)) == []


def test_what_a_model_is_given_is_read_once_it_is_written(record):
    def work():
        x = torch.empty(4, 2)
        x[:3] = 1
        torch.nn.Identity()(x)
        x[3] = 1
        torch.nn.Identity()(x)

    given = [e for e in record(work).seen if e.op == "inputs:Identity"]
    assert [(e.tainted, e.digests != [None]) for e in given] == [(True, False), (False, True)]


def test_a_reader_of_what_is_still_unwritten_is_marked(record):
    def work():
        out = torch.empty(4, 8)
        out[:2] = 1.0
        out[3, ::2] = 1.0
        out[1:3].sum()
        out[3].mean()
        out[3, 1::2].neg()
        out[:, 0].exp()
        # What overlaps counts once.
        twice = torch.empty(8)
        twice.as_strided((4, 2), (1, 1)).add_(1)
        twice.abs()

    assert [op.split(".")[1] for op in taints(record(work))] == [
        "sum",
        "mean",
        "neg",
        "exp",
        "add_",
        "abs",
    ]


def test_other_memory_at_the_address_of_freed_memory_is_marked(record):
    times = 300

    def work():
        # The allocator gives back what was freed, but not at once.
        addresses = set()
        for _ in range(times):
            out = torch.empty(1 << 10)
            addresses.add(out.data_ptr())
            out[: 1 << 9] = 1.0
            out[1 << 9 :].neg()
            del out
        assert len(addresses) < times

    run = record(work)
    assert taints(run) == ["aten.neg.default"] * times


def test_poison_changes_what_unwritten_memory_gives(record):
    def work():
        return torch.empty(8, dtype=torch.uint8).clone(), torch.zeros(8).clone()

    unwritten, zeros = record(work, poison=0x7F).result
    assert unwritten.tolist() == [0x7F] * 8
    assert zeros.tolist() == [0.0] * 8


def cache():
    # Rows that are never read may hold anything.
    rows = torch.empty(64, 4)
    rows.index_copy_(0, torch.arange(3), torch.ones(3, 4))
    rows[torch.tensor([4])] = 2.0
    rows.scatter_(0, torch.zeros(1, 4, dtype=torch.long), 1.0)
    return rows[:3].clone()


def buffer():
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("cache", torch.empty(64))

        def forward(self, x):
            self.cache[:4] = x
            return self.cache[:4] * 2

    return Cached()(torch.ones(4))


def resized():
    return torch.zeros(2).resize_(64).fill_(1)


def circular():
    return nn.Conv2d(1, 1, 3, padding=2, padding_mode="circular")(torch.ones(1, 1, 6, 6))


def ctc():
    scores = torch.randn(12, 3, 7).log_softmax(2).requires_grad_()
    F.ctc_loss(
        scores, torch.full((3, 5), 2), torch.tensor([12, 9, 8]), torch.tensor([5, 3, 2])
    ).backward()
    return scores.grad


def old_file():
    file = io.BytesIO()
    torch.save({"w": torch.ones(64)}, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    return torch.load(file)["w"]


def linearised():
    # Traces with a stand-in for the tangent, whose values nobody wrote.
    value, push = torch.func.linearize(lambda x: (x.tanh() @ x.t()).sin(), torch.ones(4, 4))
    return value + push(torch.ones(4, 4))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node:UserWarning")
@pytest.mark.parametrize("work", [cache, buffer, resized, circular, ctc, old_file, linearised])
def test_what_is_never_written_nor_read_is_not_fingerprinted(record, work):
    def after(filling):
        # Free memory of many sizes, with other contents: `empty` is likely to get it back.
        for size in (16, 64, 256, 400, 1024, 4096):
            held = [torch.full((size // 4,), filling) for _ in range(8)]
            del held
        torch.manual_seed(0)
        return work()

    one, other = record(lambda: after(1.5)), record(lambda: after(-3.0))
    assert torch.equal(one.result, other.result)
    skip = {"aten.full.default"}
    assert [v for v in one.values() if v[0][3] not in skip] == [
        v for v in other.values() if v[0][3] not in skip
    ]


def test_an_event_asked_for_keeps_its_bits(record):
    def work():
        return torch.arange(4.0) * 2

    key = SiteKey(0, "forward", "", "aten.mul.Tensor", 0)
    run = record(work, capture=(key,))
    (event,) = run.ops("aten.mul")
    assert run.sink.payloads[event.index, 1, 0] == run.result.numpy().tobytes()
    # The tensor, and the numbers beside it.
    assert [(row[0], row[4]) for row in run.sink.kept["i"]] == [
        (event.index, None),
        (event.index, "arguments"),
    ]


@pytest.fixture
def scratching(monkeypatch):
    monkeypatch.setitem(operators._SCRATCH, "native_dropout", (1,))


def test_scratch_is_neither_output_nor_input(record, scratching):
    def work():
        kept, mask = torch.native_dropout(torch.ones(64), 0.5, True)
        return kept + mask

    run = record(work, capture=(SiteKey(0, "forward", "", "aten.add.Tensor", 0),))
    (drop,) = run.ops("aten.native_dropout")
    assert len(drop.outputs) == 1
    inputs = [(position, name) for _, position, _, _, name in run.sink.kept["i"]]
    assert inputs == [(0, None), (2, "arguments")]


def test_what_an_op_only_overwrites_is_no_input_of_it(record):
    from repro_audit.model import SiteKey

    def work():
        torch.addmm(torch.ones(2), torch.ones(2, 2), torch.ones(2, 2), out=torch.empty(2, 2))
        parameter = torch.ones(2, requires_grad=True)
        parameter.grad = torch.ones(2)
        # The first step of a fused optimizer is given `empty` memory for its momentum.
        updates = torch.optim.SGD([parameter], momentum=0.9, fused=True)
        for _ in range(2):
            updates.step()

    keys = [
        SiteKey(0, "forward", "", "aten.addmm.out", 0),
        *(SiteKey(n, "optimizer", "", "aten._fused_sgd_.default", 0) for n in range(2)),
    ]
    run = record(work, capture=tuple(keys), optimizer_ops=True)
    assert taints(run) == []
    first, second, third = (
        sum(row[0] == event.index for row in run.sink.kept["i"])
        for op in ("aten.addmm", "aten._fused_sgd_")
        for event in run.ops(op)
    )
    # Their tensors, and all numbers together: the momentum is an input from the second step on.
    assert (first, second, third) == (4, 3, 4)

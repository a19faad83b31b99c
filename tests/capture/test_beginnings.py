"""What each use begins with: weights and generators at a call, optimizers before a step."""

from __future__ import annotations

import random

import pytest
import torch
from torch import nn

from repro_audit.capture.steps import StepLimitExit


def train(steps: int = 3, optimizer=torch.optim.AdamW, done: list[int] | None = None, **options):
    net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4))
    updates = optimizer(net.parameters(), **options)
    for step in range(steps):
        random.random()
        updates.zero_grad()
        net(torch.ones(2, 4)).sum().backward()
        updates.step()
        if done is not None:
            done.append(step)
    return net


def of_step(run, kind: str, step: int):
    return [e for e in run.seen if (e.kind, e.step) == (kind, step)]


def test_weights_and_buffers_are_recorded_at_every_call(record) -> None:
    run = record(train, beginnings=True)
    for step in range(3):
        names = [(e.module, e.op) for e in of_step(run, "param", step)]
        # Seven as the model is called, and four parameters after the step.
        assert len(names) == 11
        assert ("2", "param:running_mean") in names[:7]


def test_without_it_they_are_recorded_once(record) -> None:
    assert len(of_step(record(train), "param", 1)) == 4


def test_generators_are_recorded_at_every_call(record) -> None:
    run = record(train, beginnings=True)
    for step in (1, 2):
        states = [e for e in of_step(run, "rng", step) if e.op == "rng:torch"]
        # As the model is called, and where the step ends: dropout draws in between.
        assert len(states) == 2
        assert len({e.outputs[0][2] for e in states}) == 2


def test_what_an_optimizer_has_is_recorded_before_each_step(record) -> None:
    run = record(train, beginnings=True)
    for step in range(3):
        state, options = of_step(run, "state", step)
        assert (state.op, options.op) == ("state:AdamW", "options:AdamW")
        assert state.outputs[0][3] == f"tensors={12 if step else 0}"
        names = [output[3] for output in options.outputs]
        assert "group0.lr=0.001" in names
        assert "group0.betas=(0.9, 0.999)" in names
        assert not any("params" in name for name in names)


def test_options_may_be_tensors(record) -> None:
    run = record(lambda: train(1, lr=torch.tensor(0.1), foreach=False), beginnings=True)
    _, options = of_step(run, "state", 0)
    (rate,) = [output for output in options.outputs if output[3] == "group0.lr"]
    assert rate[0] == "float32"


def test_other_options_have_other_digests(record) -> None:
    digests = []
    for rate in (0.1, 0.2):
        run = record(lambda rate=rate: train(1, torch.optim.SGD, lr=rate), beginnings=True)
        digests.append([output[2] for output in of_step(run, "state", 0)[1].outputs])
    assert sum(a != b for a, b in zip(*digests, strict=True)) == 1


def test_a_program_is_cut_as_it_is_about_to_make_a_step(record) -> None:
    done: list[int] = []

    def ended() -> None:
        with pytest.raises(StepLimitExit):
            train(done=done)

    run = record(ended, beginnings=True, cut=2)
    assert done == [0, 1]
    assert run.recorder.steps == 2
    assert run.recorder.stopped_at_limit
    # What it has is recorded once more at the end, before a step it is not.
    assert [e.op for e in of_step(run, "state", 2)] == ["state:AdamW"]
    assert run.ops("aten.addmm", phase="forward")[-1].step == 2


def test_two_optimizers_are_cut_before_the_first_of_them(record) -> None:
    made: list[str] = []

    def both() -> None:
        nets = nn.Linear(4, 4), nn.Linear(4, 4)
        optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in nets]
        for _ in range(3):
            for name, net, optimizer in zip("ab", nets, optimizers, strict=True):
                net(torch.ones(2, 4)).sum().backward()
                optimizer.step()
                made.append(name)

    def ended() -> None:
        with pytest.raises(StepLimitExit):
            both()

    record(ended, cut=1)
    assert made == ["a", "b"]

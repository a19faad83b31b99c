"""Recording on an accelerator that is not CUDA's: digests are those of the values, nothing waits,
nothing is changed; its generators are known.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repro_audit import engine
from repro_audit.capture.calls import Call, rebuilt
from repro_audit.capture.draws import flags_of
from repro_audit.integrations.before import Before
from repro_audit.integrations.generators import remembered
from repro_audit.model.codes import OWN_GENERATOR, RANDOM

from ..capture.conftest import record_call


def learn(device: torch.device) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Dropout(0.1), nn.Linear(256, 8))
    net = layers.to(device)
    optimizer = torch.optim.AdamW(net.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(128, 64, device=device)).square().mean().backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def test_every_event_has_its_digest(device: torch.device) -> None:
    plain = learn(device)
    run = record_call(lambda: learn(device))
    assert all(torch.equal(plain[name], run.result[name]) for name in plain)
    # Within an optimizer's step what it leaves is what counts.
    told = [digest for e in run.seen if e.phase != "optimizer" for digest in e.digests]
    assert len(told) > 50
    assert all(told)
    names = {e.op for e in run.seen}
    generators = [name for name, _ in engine.device_generators()]
    assert len(generators) == torch.accelerator.device_count()
    assert {f"rng:torch.{name}" for name in generators} <= names


def test_seedings(device: torch.device) -> None:
    module = getattr(torch, device.type)
    call = "manual_seed_all" if hasattr(module, "manual_seed_all") else "manual_seed"
    given = [
        record_call(lambda seed=seed: getattr(module, call)(seed)).ops(
            f"seed:torch.{device.type}.{call}"
        )
        for seed in (3, 3, 4)
    ]
    (one,), (same,), (other,) = given
    assert one.digests == same.digests != other.digests


def test_generators_are_put_back(device: torch.device) -> None:
    engine.generator_of(device)
    before = [engine.tensor_digest(g.get_state()) for _, g in engine.device_generators()]
    put_back = remembered()
    torch.rand(3, device=device)
    after = [engine.tensor_digest(g.get_state()) for _, g in engine.device_generators()]
    assert before != after
    put_back()
    assert before == [engine.tensor_digest(g.get_state()) for _, g in engine.device_generators()]


def test_a_step_draws_the_same_again(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    # Apple's generator is there once it was asked for; that of others may need no asking.
    monkeypatch.setattr(torch.mps, "_default_mps_generator", None)
    layers = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5)).to(device)
    x = torch.ones(64, 8, device=device)
    before = Before(layers)
    first = layers(x)
    before.put_back()
    assert torch.equal(first, layers(x))


def test_devices_are_seeded(device: torch.device) -> None:
    engine.seed_devices(device.type, 5)
    first = torch.rand(3, device=device)
    engine.seed_devices(device.type, 5)
    assert torch.equal(first, torch.rand(3, device=device))


def test_whose_generator(device: torch.device) -> None:
    assert flags_of((torch.Generator(device),), None) == RANDOM | OWN_GENERATOR
    assert engine.generator_of(torch.device(device.type)).device == device


def test_a_draw_is_made_again(device: torch.device) -> None:
    x = torch.zeros(64, device=device)
    call = Call("aten::uniform_", (x, 0.0, 1.0), {}, random=True)
    memory = [bytes(span.end - span.begin) for span in call.spans]
    states = [state.numpy().tobytes() for state in call.states]
    drawn = x.uniform_(0.0, 1.0).clone()
    (again, *bounds), _ = rebuilt(call.json, memory, states)()
    assert torch.equal(again.uniform_(*bounds).to(device), drawn)

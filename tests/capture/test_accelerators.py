"""Generators of accelerators that are not CUDA's, stood in for by generators of the host."""

from __future__ import annotations

import pytest
import torch

from repro_audit import engine
from repro_audit.capture.draws import flags_of
from repro_audit.diagnose.origin import SEEDED
from repro_audit.integrations.generators import remembered
from repro_audit.model.codes import OWN_GENERATOR, RANDOM


@pytest.fixture
def generators(monkeypatch):
    """Two devices of Intel's and an Apple machine's, all in use."""
    xpu, mps = (torch.Generator(), torch.Generator()), torch.Generator()
    monkeypatch.setattr(torch.xpu, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.xpu, "init", lambda: None)
    monkeypatch.setattr(torch.xpu, "current_device", lambda: 1)
    monkeypatch.setattr(torch.xpu.random, "device_count", lambda: 2)
    monkeypatch.setattr(torch.xpu, "default_generators", xpu)
    monkeypatch.setattr(torch.xpu.random, "_lazy_call", lambda function, **_: function())
    monkeypatch.setattr(torch.mps, "_default_mps_generator", mps)
    monkeypatch.setattr(torch._C, "_has_mps", True)
    return {"xpu:0": xpu[0], "xpu:1": xpu[1], "mps": mps}


def test_states_and_seedings_are_events(record, generators):
    def work():
        torch.xpu.manual_seed_all(5)
        torch.mps.manual_seed(7)

    seen = {event.op: event for event in record(work).seen}
    for device in generators:
        assert f"rng:torch.{device}" in seen
    for seeding in ("seed:torch.xpu.manual_seed_all", "seed:torch.mps.manual_seed"):
        site = seen[seeding].call_site
        assert site is not None
        assert site.startswith("test_accelerators.py:")
    assert SEEDED["seed:torch.xpu.manual_seed_all"] == "torch.xpu"
    assert SEEDED["seed:torch.mps.manual_seed"] == "torch.mps"


def test_seeds_are_told_apart(record, generators):
    def digests(seed):
        run = record(lambda: torch.mps.manual_seed(seed))
        return run.ops("seed:torch.mps.manual_seed")[0].digests

    assert digests(1) == digests(1) != digests(2)


def test_what_is_not_in_use_is_not_started(record):
    assert not [e.op for e in record(lambda: None).seen if "mps" in e.op or "xpu" in e.op]
    assert torch.mps._default_mps_generator is None


def test_a_device_s_generator_is_no_own_one(generators):
    assert all(flags_of((given,), None) == RANDOM for given in generators.values())
    assert flags_of((torch.Generator(),), None) == RANDOM | OWN_GENERATOR


def test_generators_of_devices_are_found_and_seeded(generators):
    assert engine.generator_of(torch.device("xpu:0")) is generators["xpu:0"]
    assert engine.generator_of(torch.device("xpu")) is generators["xpu:1"]
    assert engine.generator_of(torch.device("mps")) is generators["mps"]
    assert engine.generator_of(torch.device("cpu")) is torch.default_generator
    for kind in ("xpu", "mps"):
        engine.seed_devices(kind, 11)
    assert [given.initial_seed() for given in generators.values()] == [11, 11, 11]


def test_they_are_put_back(generators):
    before = [given.get_state() for given in generators.values()]
    put_back = remembered()
    for given in generators.values():
        torch.rand(3, generator=given)
    put_back()
    after = [given.get_state() for given in generators.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

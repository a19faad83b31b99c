"""Generators of accelerators that are not CUDA's, stood in for by generators of the host."""

from __future__ import annotations

import functools
import random
import sys
import types

import pytest
import torch

from repro_audit import engine
from repro_audit.capture.draws import flags_of
from repro_audit.diagnose.origin import seeded_by
from repro_audit.engine import accelerators
from repro_audit.integrations.generators import remembered
from repro_audit.model.codes import OWN_GENERATOR, RANDOM


@pytest.fixture
def generators(monkeypatch):
    """Two devices of Intel's and an Apple machine's, all in use."""
    xpu, mps = (torch.Generator(), torch.Generator()), torch.Generator()
    monkeypatch.setattr(torch.xpu, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.xpu, "init", lambda: None)
    monkeypatch.setattr(torch.xpu, "current_device", lambda: 1)
    monkeypatch.setattr(torch.xpu, "is_current_stream_capturing", lambda: False)
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
    assert seeded_by("seed:torch.xpu.manual_seed_all") == "torch.xpu"
    assert seeded_by("seed:torch.mps.manual_seed") == "torch.mps"
    assert seeded_by("seed:torch.seed") == "torch"
    assert seeded_by("seed:random.Random.seed") is None


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


class _Other(types.ModuleType):
    """What another maker's module has at the least, of two devices."""

    def __init__(self) -> None:
        super().__init__("torch.hpu")
        self.generators = (torch.Generator(), torch.Generator())

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 2

    def current_device(self) -> int:
        return 0

    def get_rng_state(self, device: torch.device) -> torch.Tensor:
        return self.generators[device.index].get_state()

    def set_rng_state(self, state: torch.Tensor, device: torch.device) -> None:
        self.generators[device.index].set_state(state)

    def manual_seed_all(self, seed: int) -> None:
        for generator in self.generators:
            generator.manual_seed(seed)


@pytest.fixture
def other(monkeypatch):
    monkeypatch.setattr(accelerators, "_used", set())
    yield _Other()
    # Torch registers a module for good.
    del torch.hpu
    del sys.modules["torch.hpu"]


def test_devices_that_a_program_brings_while_it_runs(record, other):
    plain = other.manual_seed_all = functools.partial(_Other.manual_seed_all, other)

    def work():
        torch._register_device_module("hpu", other)
        other.manual_seed_all(5)

    (seeding,) = record(work).ops("seed:torch.hpu.manual_seed_all")
    assert seeding.call_site is not None
    assert other.manual_seed_all is plain


def test_a_generator_that_only_functions_reach(other):
    torch._register_device_module("hpu", other)
    assert engine.accelerator_kinds()[-1] == "hpu"
    # It does not tell whether its devices are in use, and to ask for a state starts them.
    assert not engine.device_generators()
    accelerators.note_use("hpu")
    found = dict(engine.device_generators())
    assert list(found) == ["hpu:0", "hpu:1"]
    engine.seed_devices("hpu", 3)
    before = found["hpu:1"].get_state()
    put_back = remembered()
    torch.rand(3, generator=other.generators[1])
    assert not torch.equal(found["hpu:1"].get_state(), before)
    put_back()
    assert torch.equal(found["hpu:1"].get_state(), before)
    assert engine.generator_of(torch.device("hpu", 1)) == found["hpu:1"]
    assert flags_of((other.generators[1],), None) == RANDOM | OWN_GENERATOR


def test_where_a_maker_has_put_its_functions(other, monkeypatch):
    """In a module `random` of its own; Python's, that it imported, is none of them."""
    torch._register_device_module("hpu", other)
    other.random = random
    assert engine.homes(other) == (other,)
    inner = types.SimpleNamespace(manual_seed_all=other.manual_seed_all, default_generators=())
    monkeypatch.delattr(_Other, "manual_seed_all")
    engine.seed_devices("hpu", 7)
    other.random = inner
    engine.seed_devices("hpu", 8)
    assert [given.initial_seed() for given in other.generators] == [8, 8]
    monkeypatch.delattr(_Other, "get_rng_state")
    assert engine.generator_of(torch.device("hpu", 1)) is torch.default_generator


def test_a_module_that_is_filled_after_it_is_registered(other):
    bare = types.ModuleType("torch.hpu")
    torch._register_device_module("hpu", bare)
    assert "hpu" not in engine.accelerator_kinds()
    bare.is_available = other.is_available
    assert "hpu" in engine.accelerator_kinds()
    assert not engine.device_names("hpu")


def test_names_that_a_maker_does_not_tell(other):
    torch._register_device_module("hpu", other)
    other.get_device_name = lambda: "without an index"
    assert engine.device_names("hpu") == []
    other.get_device_name = "HPU {}".format
    assert engine.device_names("hpu") == ["HPU 0", "HPU 1"]


def test_seeds_that_a_device_draws_itself(record, generators):
    def digests():
        run = record(lambda: torch.xpu.seed_all())  # noqa: PLW0108 - the call has its site here
        return run.ops("seed:torch.xpu.seed_all")[0].digests

    assert digests() != digests()

"""Which words name devices, here or elsewhere."""

from __future__ import annotations

import pytest

from repro_audit.errors import UsageError
from repro_audit.replicate import machine


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:3", "xpu", "xpu:1", "mps", "mtia"])
def test_torch_s_own_are_known_without_asking(name, monkeypatch):
    def asked():
        raise AssertionError(name)

    monkeypatch.setattr(machine, "machine", asked)
    assert machine.known(name)


def test_those_of_another_maker_are_asked_for(monkeypatch):
    here = machine.Machine("avx2", {"cuda": 0, "npu": 2})
    monkeypatch.setattr(machine, "_kinds", lambda: frozenset(here.devices))
    assert [machine.known(name) for name in ("npu", "npu:1")] == [True, True]
    for name in ("gpu", "npu:", "cpu:0", "mps:0", "", "NPU", "cuda:x", "npu:1:1"):
        assert not machine.known(name)
    here.check("npu:1")
    with pytest.raises(UsageError, match=r"no device npu:2 here\. There are: cpu, npu \(2\)"):
        here.check("npu:2")


def test_what_torch_finds_here():
    found = machine.machine()
    assert set(found.devices) >= {"cuda", "xpu", "mps", "mtia"}
    assert found.capability

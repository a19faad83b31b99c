"""How far fabricated runs drift apart, and what they started from."""

from __future__ import annotations

from typing import Any

import pytest

from repro_audit.audit.comparing import compared
from repro_audit.diagnose import drift as drifting
from repro_audit.diagnose.align import align
from repro_audit.diagnose.drift import drift, gaps_between
from repro_audit.diagnose.start import draws_compare, start_of
from repro_audit.model import Drift, RunInfo, Start, Tolerance

EPSILON = 2.0**-20


def event(name: str, number: float, module: str = "", **columns: Any) -> tuple[Any, ...]:
    """An event of one output, all of whose four elements are `number`."""
    return name, hash(number), {"module": module, "sample": [number] * 4, **columns}


def hash(number: float) -> int:
    return int(number * 2**40) & (2**100 - 1)


def between(run: Any, a: Any, b: Any, tolerance: Tolerance | None = None, **options: Any) -> Any:
    one, other = run(a), run(b)
    asked, alignment = tolerance or Tolerance(), align(one, other)
    gaps = gaps_between(one, other, alignment, tolerance=asked, **options)
    return drift(one, other, alignment, gaps, ("a", "b"), asked)


def layers(scale: float = 0.0, **columns: Any) -> list[tuple[Any, ...]]:
    """Three layers, each off by more than the one before."""
    return [
        event("embedding", 1.0, "emb", **columns),
        event("addmm", 1.0 + scale, "h.0", **columns),
        event("addmm", 1.0 + 2 * scale, "h.1", **columns),
        event("addmm", 1.0 + 20 * scale, "head", **columns),
    ]


def test_runs_alike_do_not_drift(run) -> None:
    assert between(run, layers(), layers()) is None


def test_layers_in_order_and_where_it_grows(run) -> None:
    found: Drift = between(run, layers(), layers(EPSILON))
    assert [gap.key.module for gap in found.layers] == ["h.0", "h.1", "head"]
    assert [gap.deviation.rms for gap in found.layers] == pytest.approx(
        [EPSILON, 2 * EPSILON, 20 * EPSILON], rel=1e-4
    )
    grown = found.amplification
    assert grown is not None
    assert (grown.before.key.module, grown.after.key.module) == ("h.1", "head")
    assert grown.factor == pytest.approx(10, rel=1e-3)
    assert (found.differing, found.measured, found.sampled) == (3, 3, 0)
    assert found.largest == found.layers[-1]
    assert found.bias == -1.0


def test_what_rounding_explains_grows_with_what_is_added_up(run) -> None:
    short: Drift = between(run, layers(length=1), layers(EPSILON, length=1))
    assert short.first_beyond is not None
    assert short.first_beyond.key.module == "h.0"
    long: Drift = between(run, layers(length=4096), layers(EPSILON, length=4096))
    assert (long.beyond, long.first_beyond) == (0, None)
    assert long.layers[0].expected == pytest.approx(4 * 2**0.5 * 2**-24 * (2 * 4096) ** 0.5)


@pytest.mark.parametrize(("limit", "beyond"), [(7, 3), (8, 2), (16, 1), (160, 0)])
def test_ulp_that_were_asked_for(run, limit: int, beyond: int) -> None:
    # 2^-20 above 1 is 8 steps of float32.
    found: Drift = between(run, layers(), layers(EPSILON), Tolerance(ulp=limit))
    assert found.beyond == beyond


def test_not_a_number_is_beyond_all(run) -> None:
    nan = float("nan")
    a = [("exp", 1, {"sample": [1.0] * 4})]
    b = [("exp", 2, {"sample": [1.0, nan, 1.0, 1.0]})]
    found: Drift = between(run, a, b, Tolerance(ulp=2**40))
    assert found.beyond == 1


def test_a_sample_is_told(run) -> None:
    found: Drift = between(run, layers(shape=(100,)), layers(EPSILON, shape=(100,)))
    assert found.sampled == 4


def test_without_values_nothing_is_measured(run) -> None:
    found: Drift = between(run, [("addmm", 1)], [("addmm", 2)])
    assert (found.differing, found.measured, found.largest) == (1, 0, None)


def test_what_an_optimizer_keeps_is_left_out(run) -> None:
    def trained(off: float) -> list[tuple[Any, ...]]:
        state = {"kind": "state", "phase": "optimizer"}
        return [event("addmm", 1.0 + off), event("state:AdamW", 1e-9 + 100 * off, "", **state)]

    found: Drift = between(run, trained(0.0), trained(EPSILON), Tolerance(ulp=1000))
    assert (found.differing, found.measured, found.beyond) == (1, 1, 0)


def test_losses_and_weights_of_each_step(run) -> None:
    def training(off: float) -> list[tuple[Any, ...]]:
        return [
            row
            for step in range(2)
            for row in (
                event("nll_loss_forward", 2.0 + step + step * off, step=step, shape=()),
                event("ones_like", 1.0, step=step, shape=()),
                event("mm", 3.0, step=step, phase="backward", cause=0),
                event("param:weight", 1.0 + step * off, "fc", step=step),
            )
        ]

    found: Drift = between(run, training(0.0), training(0.5))
    assert [(step.step, step.losses) for step in found.steps] == [(0, (2.0, 2.0)), (1, (3.0, 3.5))]
    assert found.steps[1].weights == pytest.approx(0.5 / 1.5)


def test_of_many_events_some_are_measured(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drifting, "LIMIT", 10)
    many = [event("exp", 1.0) for _ in range(40)]
    off = [event("exp", 2.0) for _ in range(40)]
    found: Drift = between(run, many, off)
    assert found.differing == 40
    assert 6 <= found.measured <= 10
    # What is tolerated is looked at.
    assert between(run, many, off, Tolerance(rounding=True)).measured == 40


def test_what_follows_in_another_process_from_another_start_is_no_origin(run) -> None:
    def started(drawn: float) -> list[tuple[Any, ...]]:
        before = [event("exp", 1.0, time=at) for at in range(1, 4)]
        begun = event("rand", drawn, flags=2, time=4)
        return [*before, begun, event("sin", drawn, process="1", time=5)]

    other = {"torch": {"backends": {"cpu": {"get_cpu_capability": "DEFAULT"}}}}
    traces = run(started(1.0)), run(started(2.0), other)
    runs = [RunInfo(name, name, trace.manifest) for name, trace in zip("ab", traces, strict=True)]
    audit = compared(runs, traces, Tolerance())
    assert (audit.verdict, audit.origin) == ("divergent", None)
    assert audit.reason == "the runs did not start equal"


def test_random_numbers_of_another_machine_are_left_out(run) -> None:
    a = [event("rand", 1.0, flags=2), event("exp", 1.0)]
    b = [event("rand", 2.0, flags=2), event("exp", 2.0)]
    assert between(run, a, b).differing == 2
    assert between(run, a, b, draws=False).differing == 1


def test_what_runs_start_from(run) -> None:
    def started(weight: int, batch: int, drawn: int) -> list[tuple[Any, ...]]:
        return [
            ("rand", drawn, {"flags": 2}),
            ("param:weight", weight),
            ("DataLoader.__next__", batch, {"kind": "batch"}),
            ("exp", 9),
            ("param:weight", 17 + weight),
        ]

    a, b = run(started(1, 1, 1)), run(started(2, 1, 3))
    found, first = start_of(a, b, align(a, b))
    assert found == Start(weights=(1, 1), inputs=(1, 0), draws=(1, 1))
    assert not found.equal
    assert first == 0
    c = run(started(1, 1, 1))
    assert start_of(a, c, align(a, c)) == (Start((1, 0), (1, 0), (1, 0)), None)


def test_what_a_device_draws_by_an_operator_of_its_own(run) -> None:
    def started(op: str, value: int, device: str, given: list[Any]) -> Any:
        there = {"device": device}
        drawn = (op, value, {**there, "flags": 2})
        return run([("exp", 1, there), drawn, ("tanh", value, there)], plan={"given": given})

    cpu, cuda = started("bernoulli_", 1, "cpu", []), started("native_dropout", 2, "cuda:0", [])
    found, first = start_of(cpu, cuda, align(cpu, cuda))
    assert (found.draws, first) == ((1, 1), 1)
    given = started("native_dropout", 2, "cuda:0", [{"what": "all", "trace": "a"}])
    found, first = start_of(cpu, given, align(cpu, given))
    assert (found.draws, first) == ((0, 0), None)


@pytest.mark.parametrize(
    ("manifest", "device", "compare"),
    [
        ({}, "cpu", True),
        ({"torch": {"backends": {"cpu": {"get_cpu_capability": "DEFAULT"}}}}, "cpu", False),
        ({"versions": {"torch": "2.11.0"}}, "cpu", False),
        ({"torch": {"cuda": {"devices": ["A100"]}}}, "cpu", True),
        ({}, "cuda:0", False),
        ({"environment": {"OMP_NUM_THREADS": "2"}}, "cpu", True),
    ],
)
def test_which_machines_draw_alike(
    run, manifest: dict[str, Any], device: str, compare: bool
) -> None:
    a, b = run([("exp", 1)]), run([("exp", 1, {"device": device})], manifest)
    assert draws_compare(a, b) is compare

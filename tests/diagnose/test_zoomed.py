"""The zoom: inputs as they were read, ULP figures from kept tensors, rows in another order."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

import pytest

from repro_audit.diagnose.zoomed import Zoomed, look
from repro_audit.model import SiteKey, TensorSpec
from repro_audit.trace import Trace

Run = Callable[..., Trace]
KEY = SiteKey(0, "forward", "", "aten.mm.default", 0)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def seen(run: Run, one: dict[str, Any], other: dict[str, Any]) -> Zoomed | None:
    return look(run([("mm", 1, one)]), run([("mm", 2, other)]), KEY)


def test_one_step_of_float32(run: Run) -> None:
    above = struct.unpack("<f", struct.pack("<I", 0x3F800001))[0]
    found = seen(run, {"keep": floats(1, 2, 3, 4)}, {"keep": floats(above, 2, 3, -4)})
    assert found is not None
    assert found.ulp is not None
    assert (found.differs, found.output, found.spec) == (
        True,
        0,
        TensorSpec("float32", (4,), "cpu"),
    )
    assert (found.ulp.numel, found.ulp.differing, found.ulp.sign_flips) == (4, 2, 1)
    assert found.ulp.first_index == (0,)
    assert found.ulp.max_index == (3,)
    assert found.ulp.max_ulp == 2 * 0x40800000
    assert found.ulp.histogram[1] == 1


@pytest.mark.parametrize(
    ("dtype", "one", "other", "distance"),
    [
        ("float32", struct.pack("<I", 0x3F800000), struct.pack("<I", 0x3F800003), 3),
        ("bfloat16", struct.pack("<H", 0x3F80), struct.pack("<H", 0x3F81), 1),
        ("float16", struct.pack("<H", 0x0001), struct.pack("<H", 0x8001), 2),
        ("float64", struct.pack("<d", 0.0), struct.pack("<Q", 5), 5),
        ("int64", struct.pack("<q", -3), struct.pack("<q", 4), 7),
        ("int64", struct.pack("<q", -(2**63)), struct.pack("<q", 2**63 - 1), 2**64 - 1),
        ("bool", b"\0", b"\1", 1),
    ],
)
def test_known_distances(run: Run, dtype: str, one: bytes, other: bytes, distance: int) -> None:
    columns = {"dtype": dtype, "shape": ()}
    found = seen(run, {**columns, "keep": one}, {**columns, "keep": other})
    assert found is not None
    assert found.ulp is not None
    assert (found.ulp.dtype, found.ulp.numel, found.ulp.max_ulp) == (dtype, 1, distance)


def test_inputs_are_said_identical_only_when_they_were_read(run: Run) -> None:
    def inputs(one: tuple[int, ...], other: tuple[int, ...]) -> bool | None:
        found = seen(run, {"inputs": one}, {"inputs": other})
        assert found is not None
        return found.inputs_identical

    assert inputs((1, 2), (1, 2)) is True
    assert inputs((1, 2), (1, 3)) is False
    assert inputs((1, 2), (1,)) is False
    assert inputs((), ()) is None
    assert inputs((1,), ()) is None


def test_inputs_that_nothing_was_read_from(run: Run) -> None:
    """Their specs agree, but that is not their bits."""
    found = seen(run, {"inputs": (1, None)}, {"inputs": (1, None)})
    assert found is not None
    assert found.inputs_identical is None
    found = seen(run, {"inputs": (1, None)}, {"inputs": (2, None)})
    assert found is not None
    assert found.inputs_identical is False


def test_an_event_that_did_not_differ_this_time(run: Run) -> None:
    events = [("mm", 1, {"keep": floats(1, 2, 3, 4), "inputs": (5,)})]
    assert look(run(events), run(events), KEY) == Zoomed(False, True)


def test_an_event_that_is_not_there(run: Run) -> None:
    a, b = run([("mm", 1)]), run([("add", 1)])
    assert look(a, b, KEY) is None
    assert look(b, a, KEY) is None


def test_nothing_kept(run: Run) -> None:
    found = seen(run, {"inputs": (1,)}, {"inputs": (1,)})
    assert found == Zoomed(True, True, 0, TensorSpec("float32", (4,), "cpu"))


def test_other_shapes_have_no_distance(run: Run) -> None:
    found = seen(
        run,
        {"keep": floats(1, 2, 3, 4), "shape": (4,)},
        {"keep": floats(1, 2, 3, 4), "shape": (2, 2)},
    )
    assert found is not None
    assert (found.differs, found.ulp) == (True, None)


def test_the_same_rows_in_another_order(run: Run) -> None:
    columns = {"shape": (3, 2)}
    one, other = floats(1, 2, 3, 4, 5, 6), floats(5, 6, 1, 2, 3, 4)
    found = seen(run, {**columns, "keep": one}, {**columns, "keep": other})
    assert found is not None
    assert (found.reordered, found.in_place) == (3, (0, 3))
    found = seen(run, {**columns, "keep": one}, {**columns, "keep": floats(2, 1, 3, 4, 5, 6)})
    assert found is not None
    assert (found.reordered, found.in_place) == (0, (2, 3))
    found = seen(run, {"keep": floats(1), "shape": (1,)}, {"keep": floats(2), "shape": (1,)})
    assert found is not None
    assert (found.reordered, found.in_place) == (0, (0, 0))


@pytest.mark.parametrize(
    ("before", "inputs", "exchanged"),
    [
        # The same two, the other way round, whoever made them.
        ([], [(8, 9), (9, 8)], 2),
        # Values that both runs had computed, of which each took another one.
        ([("exp", 8), ("sin", 9)], [(7, 8), (7, 9)], 1),
        ([("exp", 8)], [(7, 8), (7, 9)], 0),
        ([("exp", 8), ("zeros", 9)], [(7, 8), (7, 9)], 0),
        ([("exp", 8, {"dtype": "int64"}), ("sin", 9)], [(7, 8), (7, 8)], 0),
    ],
)
def test_what_both_runs_had_before(
    run: Run, before: list[Any], inputs: list[tuple[int, ...]], exchanged: int
) -> None:
    one, other = (run([*before, ("mm", n, {"inputs": given})]) for n, given in enumerate(inputs, 1))
    found = look(one, other, KEY)
    assert found is not None
    assert found.exchanged == exchanged


def test_the_event_is_found_by_its_whole_key(run: Run) -> None:
    def events(value: int) -> list[Any]:
        return [("mm", 1), ("mm", 2, {"step": 1}), ("mm", value), ("mm", value, {"thread": "1"})]

    a, b = run(events(3)), run(events(4))
    for step, call, thread, differs in ((0, 0, "", False), (1, 0, "", False), (0, 1, "", True)):
        key = SiteKey(step, "forward", "", "aten.mm.default", call, thread)
        found = look(a, b, key)
        assert found is not None
        assert found.differs is differs


@pytest.mark.parametrize(
    ("one", "other", "identical"),
    [
        ((), (), None),
        ((b"a", b"b"), (b"a", b"b"), True),
        ((b"a", b"b"), (b"a", b"c"), False),
        ((b"a",), (b"a", b"b"), False),
    ],
)
def test_the_states_that_a_draw_began_with(run: Run, one, other, identical) -> None:
    found = seen(
        run, {"keep": floats(1), "states": one, "shape": (1,)},
        {"keep": floats(2), "states": other, "shape": (1,)},
    )  # fmt: skip
    assert found is not None
    assert found.generators_identical is identical


def test_the_number_that_differs(run: Run) -> None:
    def call(*arguments: Any, **keywords: Any) -> dict[str, Any]:
        return {"arguments": list(arguments), "keywords": keywords}

    def said(one: dict[str, Any] | None, other: dict[str, Any] | None, *, tensors: int = 1) -> str:
        runs = []
        for value, given in ((1, one), (2, other)):
            inputs = [(5 if tensors == 1 else value), value]
            columns = {"inputs": tuple(inputs), "numbers": (1,), "call": given}
            runs.append(run([("mul", value, columns)]))
        found = look(*runs, SiteKey(0, "forward", "", "aten.mul.default", 0))
        assert found is not None
        return re.sub(r"run-\d+", "run", found.given)

    half, third = {"float": (0.5).hex()}, {"float": (1 / 3).hex()}
    tensor = {"tensor": 0}
    shown = "argument 2 is 0.5 in run and 0.3333333333333333 in run"
    assert said(call(tensor, half), call(tensor, third)) == shown
    assert said(call(tensor, p=3), call(tensor, p=4)) == "argument p is 3 in run and 4 in run"
    turned = call(tensor, {"complex": ["0x1.0p+0", "0x1.0p-1"]})
    assert said(call(tensor, half), turned) == "argument 2 is 0.5 in run and (1+0.5j) in run"
    shifts = call(tensor, [1, 2]), call(tensor, [1, 3])
    assert said(*shifts) == "a part of argument 2 is 2 in run and 3 in run"
    assert said(None, None) == "an argument that is no tensor differs"
    rounding = call(tensor, rounding_mode="floor"), call(tensor, rounding_mode="trunc")
    assert said(*rounding) == "argument rounding_mode is 'floor' in run and 'trunc' in run"
    lengths = call(tensor, [1, 2]), call(tensor, [1, 2, 3])
    assert said(*lengths) == "an argument that is no tensor differs"
    # Where tensors differ as well, a number explains nothing.
    assert said(call(tensor, half), call(tensor, third), tensors=2) == ""

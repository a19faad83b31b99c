"""What two checkpoints differ by, and how their names are matched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repro_audit.checkpoint.contents import Checkpoint, Held, Part, Value
from repro_audit.diagnose.checkpoints import compare_pair
from repro_audit.engine import array_view
from repro_audit.errors import CheckpointError
from repro_audit.model import CheckpointPair


def checkpoint(
    arrays: Mapping[str, Any],
    values: Mapping[str, Value] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Checkpoint:
    tensors = {
        name: each if isinstance(each, Held) else Held.of(array_view(np.asarray(each)))
        for name, each in arrays.items()
    }
    return Checkpoint("a", "torch", tensors, values or {}, metadata or {})


def kinds(pair: CheckpointPair) -> list[tuple[str, str, str]]:
    return [(found.kind, found.name, found.other) for found in pair.tensors]


FLOATS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def test_identical() -> None:
    pair = compare_pair(checkpoint({"w": FLOATS}, {"n": 1}), checkpoint({"w": FLOATS}, {"n": 1}))
    assert (pair.compared, pair.identical, pair.values_compared) == (1, 1, 1)
    assert (pair.tensors, pair.values, pair.renaming) == ((), (), None)


def test_by_how_much() -> None:
    other = FLOATS.copy()
    other[1, 2] = np.nextafter(other[1, 2], np.float32(2))
    other[2, 0] = np.nextafter(other[2, 0], np.float32(2))
    pair = compare_pair(
        checkpoint({"w": FLOATS, "v": FLOATS}), checkpoint({"w": other, "v": FLOATS})
    )
    assert (pair.compared, pair.identical) == (2, 1)
    (found,) = pair.tensors
    assert (found.kind, found.name, found.within) == ("value", "w", False)
    assert found.ulp is not None
    assert (found.ulp.differing, found.ulp.max_ulp) == (2, 1)
    apart = np.linalg.norm(FLOATS.astype(float) - other) / np.linalg.norm(FLOATS.astype(float))
    assert found.rms == pytest.approx(apart, rel=1e-6)
    assert found.flipped_bit is None


@pytest.mark.parametrize("bit", [0, 21, 31])
def test_one_bit_of_one_element(bit: int) -> None:
    other = FLOATS.copy()
    other.view(np.uint32)[2, 3] ^= np.uint32(1 << bit)
    (found,) = compare_pair(checkpoint({"w": FLOATS}), checkpoint({"w": other})).tensors
    assert found.flipped_bit == bit
    other.view(np.uint32)[2, 3] ^= np.uint32(1 << 5)
    (found,) = compare_pair(checkpoint({"w": FLOATS}), checkpoint({"w": other})).tensors
    assert found.flipped_bit is None


def test_one_bit_of_a_complex_number() -> None:
    held = np.ones((2, 2), np.complex64)
    other = held.copy()
    other.view(np.uint64)[1, 0] ^= np.uint64(1 << 40)
    (found,) = compare_pair(checkpoint({"w": held}), checkpoint({"w": other})).tensors
    assert found.flipped_bit == 40


def test_tolerance() -> None:
    near = np.nextafter(FLOATS, np.float32(2))
    broken = near.copy()
    broken[0, 0] = np.nan
    a = checkpoint({"w": FLOATS})
    for other, ulp, within in ((near, 1, True), (near, 0, False), (broken, 10, False)):
        (found,) = compare_pair(a, checkpoint({"w": other}), ulp=ulp).tensors
        assert found.within == within


def test_shapes_and_dtypes() -> None:
    a = checkpoint({"w": FLOATS, "h": FLOATS, "i": np.arange(3)})
    b = checkpoint({"w": FLOATS.T.copy(), "h": FLOATS.astype(np.float16), "i": np.ones(3)})
    shape, dtype, other = compare_pair(a, b).tensors
    assert (shape.kind, shape.ulp, shape.rms) == ("shape", None, None)
    assert dtype.kind == "dtype"
    assert dtype.ulp is not None
    assert (dtype.ulp.differing, dtype.within) == (0, False)
    assert 0 < (dtype.rms or 0) < 1e-3
    assert (other.kind, other.ulp) == ("dtype", None)


def test_what_one_side_has_alone() -> None:
    a = checkpoint({"w": FLOATS, "x": FLOATS + 1}, {"n": 1, "m": None})
    b = checkpoint({"w": FLOATS, "y": FLOATS + 2}, {"n": 1.0, "l": "x"})
    pair = compare_pair(a, b)
    assert kinds(pair) == [("missing", "x", "x"), ("missing", "y", "y")]
    assert [(v.name, v.a, v.b, v.missing) for v in pair.values] == [
        ("n", 1, 1.0, None),  # another type
        ("m", None, None, "b"),
        ("l", None, "x", "a"),
    ]


def test_another_name_for_the_same_bits() -> None:
    a = checkpoint({"w": FLOATS, "old": FLOATS + 1, "p": FLOATS * 0, "q": FLOATS * 0})
    b = checkpoint({"w": FLOATS, "new": FLOATS + 1, "r": FLOATS * 0, "s": FLOATS * 0})
    # Of two alike nobody knows which is which.
    assert kinds(compare_pair(a, b)) == [
        ("renamed", "old", "new"),
        ("missing", "p", "p"),
        ("missing", "q", "q"),
        ("missing", "r", "r"),
        ("missing", "s", "s"),
    ]


def test_tied_tensors_are_kept_once_by_some_formats() -> None:
    shared = Held.of(array_view(FLOATS))
    copy = Held.of(array_view(FLOATS.copy()))
    tied, plain = {"wte": shared, "head": shared}, {"wte": copy}
    for a, b in ((tied, plain), (plain, tied)):
        pair = compare_pair(checkpoint(a), checkpoint(b))
        assert (pair.tensors, pair.tied, pair.identical) == ((), ("head",), 1)
    # Fingerprints that were kept tell it too.
    fingerprints, ties = checkpoint(tied).fingerprints, checkpoint(tied).ties
    kept = Checkpoint("k", "fingerprints", {}, {}, kept=fingerprints, kept_ties=ties)
    for a, b in ((kept, checkpoint(plain)), (checkpoint(plain), kept)):
        assert compare_pair(a, b).tied == ("head",)
    # Equal bits are not enough.
    untied = {"wte": shared, "head": copy}
    assert kinds(compare_pair(checkpoint(untied), checkpoint(plain))) == [
        ("missing", "head", "head")
    ]


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        (["x.w", "y"], ["module.x.w", "module.y"], "'module'"),
        (["_orig_mod.x.w"], ["x.w"], "'_orig_mod'"),
        (["module._orig_mod.x.w"], ["x._checkpoint_wrapped_module.w"], None),
        (["x.w", "y"], ["model.x.w", "model.y", "optimizer.lr"], "'model.'"),
        (["model.x.w", "model.y"], ["x.w", "y"], "'model.'"),
        (["x.w"], ["model.module.x.w"], "'module', 'model.'"),
        (["x.w"], ["pytorch_model/x.w"], "'pytorch_model/'"),
    ],
)
def test_names_of_wrappers_and_prefixes(a: list[str], b: list[str], said: str | None) -> None:
    pair = compare_pair(
        checkpoint({name: FLOATS + i for i, name in enumerate(a)}),
        checkpoint({name: FLOATS + i for i, name in enumerate(b)}),
    )
    assert (pair.compared, pair.identical) == (len(a), len(a))
    assert said is None or pair.renaming == said
    assert len(pair.tensors) == len(b) - len(a)


def test_names_that_match_are_not_read_otherwise() -> None:
    a = checkpoint({"x": FLOATS, "module.y": FLOATS + 1})
    b = checkpoint({"x": FLOATS, "z": FLOATS + 2})
    pair = compare_pair(a, b)
    assert pair.renaming is None
    assert kinds(pair) == [("missing", "module.y", "module.y"), ("missing", "z", "z")]


def test_names_that_would_become_one_are_left() -> None:
    a = checkpoint({"module.x": FLOATS, "_orig_mod.x": FLOATS + 1})
    assert compare_pair(a, checkpoint({"x": FLOATS + 2})).renaming is None


def test_wrappers_are_passed_over_where_some_names_match_anyway() -> None:
    a = checkpoint({"model.module.x": FLOATS, "model.module.y": FLOATS, "optimizer.m": FLOATS})
    b = checkpoint({"model.x": FLOATS, "model.y": FLOATS + 1, "optimizer.m": FLOATS})
    pair = compare_pair(a, b)
    assert (pair.compared, pair.identical, pair.renaming) == (3, 2, "'module'")


def test_values_are_named_as_tensors_are() -> None:
    a = checkpoint({"w": FLOATS}, {"_extra_state": "x"})
    b = checkpoint({"module.w": FLOATS}, {"module._extra_state": "x"})
    for pair in (compare_pair(a, b), compare_pair(b, a)):
        assert (pair.values, pair.values_compared) == ((), 1)


def test_no_two_names_become_one() -> None:
    a = checkpoint({"module.x": FLOATS})
    b = checkpoint({"model.x": FLOATS + 5, "x": FLOATS})
    pair = compare_pair(a, b)
    assert len(pair.tensors) == 1
    assert pair.tensors[0].other == "model.x"


def test_a_tolerance_is_for_floats() -> None:
    for a, b in ((5, 6), (True, False)):
        pair = compare_pair(checkpoint({"n": a}), checkpoint({"n": b}), ulp=1)
        assert not pair.tensors[0].within


def test_a_step_of_training_is_no_fault_of_memory() -> None:
    before = checkpoint({"n": np.array(4), "step": np.float32(2.0), "w": FLOATS})
    after = checkpoint({"n": np.array(5), "step": np.float32(4.0), "w": FLOATS})
    assert {found.flipped_bit for found in compare_pair(before, after).tensors} == {None}
    flipped = FLOATS.copy()
    flipped.view(np.uint32)[2, 3] ^= np.uint32(1)
    one, other = checkpoint({"w": FLOATS}), checkpoint({"w": flipped})
    assert compare_pair(one, other).tensors[0].flipped_bit == 0
    assert compare_pair(one, other, ulp=1).tensors[0].flipped_bit is None
    assert compare_pair(one, other, ignored=["v"]).tensors[0].flipped_bit is None
    trained = checkpoint({"w": flipped}, {"step": 2})
    assert compare_pair(one, trained).tensors[0].flipped_bit is None
    more = checkpoint({"w": flipped, "v": FLOATS})
    assert compare_pair(one, more).tensors[0].flipped_bit is None
    flag = compare_pair(checkpoint({"f": [True, True]}), checkpoint({"f": [True, False]}))
    assert flag.tensors[0].flipped_bit is None


def test_zeros_of_either_sign_are_values_apart() -> None:
    pair = compare_pair(checkpoint({}, {"x": 0.0}), checkpoint({}, {"x": -0.0}))
    assert len(pair.values) == 1


def test_ignored_names() -> None:
    a = checkpoint({"w": FLOATS, "optimizer.m": FLOATS}, {"time": 1, "n": 2})
    b = checkpoint({"w": FLOATS, "optimizer.m": FLOATS + 1, "optimizer.v": FLOATS}, {"time": 3})
    pair = compare_pair(a, b, ignored=("optimizer.*", "time", "n"))
    assert (pair.compared, pair.tensors, pair.values) == (1, (), ())


def test_metadata_that_one_format_has_is_no_difference() -> None:
    a = checkpoint({"w": FLOATS}, metadata={"format": "pt"})
    assert compare_pair(a, checkpoint({"w": FLOATS})).values == ()
    assert compare_pair(checkpoint({"w": FLOATS}), a).values == ()
    other = checkpoint({"w": FLOATS}, metadata={"format": "np"})
    (found,) = compare_pair(a, other).values
    assert (found.name, found.a, found.b) == ("__metadata__.format", "pt", "np")
    assert len(compare_pair(a, checkpoint({"w": FLOATS}, metadata={"of": "pt"})).values) == 2
    # A name that only looks like it is a value as all are.
    named = checkpoint({"w": FLOATS}, {"cfg.__metadata__.lr": 1})
    assert len(compare_pair(named, checkpoint({"w": FLOATS})).values) == 1


def test_fingerprints_alone_tell_equal_from_not() -> None:
    a = checkpoint({"w": FLOATS, "v": FLOATS})
    fingerprints = checkpoint({"w": FLOATS, "v": -FLOATS}).fingerprints
    kept = Checkpoint("k", "fingerprints", {}, {}, kept=fingerprints)
    (found,) = compare_pair(kept, a).tensors
    assert (found.name, found.kind, found.ulp) == ("v", "value", None)


def test_parts_are_put_together() -> None:
    whole = np.arange(35, dtype=np.float32).reshape(5, 7)
    boxes = [(0, 3, 0, 7), (3, 5, 0, 2), (3, 5, 2, 7)]
    parts = tuple(Part((r, c), array_view(whole[r:s, c:d])) for r, s, c, d in boxes)
    held = Held("float32", (5, 7), parts)
    assert compare_pair(checkpoint({"w": held}), checkpoint({"w": whole})).identical == 1
    for wrong, said in ((parts[:2], "hold 25 of its 35"), (parts[1:2] * 9, "hold 4 of its 35")):
        with pytest.raises(CheckpointError, match=said):
            Held("float32", (5, 7), wrong).view()
    with pytest.raises(CheckpointError, match="does not fit"):
        Held("float32", (5, 7), (Part((4, 0), array_view(whole)),)).view()


def test_paths_are_of_no_matter(tmp_path: Path) -> None:
    assert compare_pair(checkpoint({}), checkpoint({})).other == "a"

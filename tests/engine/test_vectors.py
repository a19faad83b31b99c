"""The known answers, on every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from repro_audit.engine import TAGS, choice, reference


def pattern(nbytes: int, modulus: int = 251) -> np.ndarray:
    return (np.arange(nbytes) % modulus).astype(np.uint8)


def hexes(lanes: tuple[int, int]) -> list[str]:
    return [f"{lane:016x}" for lane in lanes]


def test_runs(each_engine: str, vectors: dict[str, Any]) -> None:
    engine = choice.engine()
    for case in vectors["cases"]:
        data = pattern(case["nbytes"])
        address, key = data.ctypes.data, int(case["key"], 16)
        lanes = engine.lanes(address, data.nbytes, case["offset"], key)
        assert hexes(lanes) == case["lanes"], case
        if "digest" in case:
            assert engine.digest(address, data.nbytes, case["tag"], key).hex() == case["digest"]
            assert engine.finalize(*lanes, data.nbytes, case["tag"]).hex() == case["digest"]


def test_tags(each_engine: str, vectors: dict[str, Any]) -> None:
    engine = choice.engine()
    assert {case["tag"] for case in vectors["tags"]} == set(TAGS.values())
    for case in vectors["tags"]:
        data = pattern(case["nbytes"], 2 if case["tag"] == TAGS["bool"] else 251)
        assert engine.digest(data.ctypes.data, data.nbytes, case["tag"]).hex() == case["digest"]
        sizes = (data.nbytes // case["itemsize"],)
        lanes = engine.multiset(data.ctypes.data, sizes, (1,), case["itemsize"])
        assert hexes(lanes) == case["multiset_lanes"]
        digest = engine.finalize(*lanes, data.nbytes, case["tag"] + 256)
        assert digest.hex() == case["multiset"]


def test_word_and_block_keys(vectors: dict[str, Any]) -> None:
    for lane in (0, 1):
        word = [f"{key:08x}" for key in reference.word_keys(0, lane)[:8]]
        assert word == vectors["word_keys_key0"][lane]
        block = reference.block_keys(0, lane, np.arange(4, dtype=np.uint64))
        assert [f"{key:016x}" for key in block] == vectors["block_keys_key0"][lane]


@pytest.mark.parametrize("side", ["first", "second"])
def test_streams_that_must_differ(each_engine: str, vectors: dict[str, Any], side: str) -> None:
    """Sparse streams of 3.7 GB, by the linearity of the lanes: zeros add nothing."""
    case = vectors["must_differ"]
    total = [0, 0]
    for index, value in case[side]:
        element = np.array([value], np.float32)
        lanes = choice.engine().lanes(element.ctypes.data, 4, 4 * index)
        total = [(a + b) % 2**64 for a, b in zip(total, lanes, strict=True)]
    assert hexes((total[0], total[1])) == case[f"lanes_{side}"]
    assert case["lanes_first"] != case["lanes_second"]

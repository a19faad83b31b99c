"""What is drawn: the values behind each picture, and that a picture is always the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import pytest

from repro_audit.model import Audit
from repro_audit.report.charts import Picture, pictures, static

from .overviews import SMALL


def drawn(audit: Audit) -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures(audit)}


def values(picture: Picture) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = picture.spec["data"]["values"]
    return found


def test_what_is_drawn_of_which_audit(audits: dict[str, Audit]) -> None:
    assert list(drawn(audits["overview"])) == ["heat", "ulp"]
    assert list(drawn(audits["own-errors"])) == ["ulp", "depth", "loss", "steps", "own"]
    assert drawn(audits["identical"]) == {}
    assert drawn(audits["overview-identical"]) == {}


def test_the_heat_map_has_a_field_for_what_was_compared(audits: dict[str, Audit]) -> None:
    fields = values(drawn(audits["overview"])["heat"])
    # Of three rows and three steps one has no event.
    assert len(fields) == 8
    assert fields[0] == {
        "module": "(outside modules)",
        "step": "0",
        "differ": "0 of 13 events",
        "share": 0.0,
        "size": "not measured",
    }
    assert fields[5]["differ"] == "3 of 4 events"
    assert (fields[5]["share"], fields[5]["size"]) == (0.75, "0.5 of its size")


def test_columns_of_several_steps_say_which(audits: dict[str, Audit]) -> None:
    fields = values(drawn(audits["overview-large"])["heat"])
    steps = list(dict.fromkeys(field["step"] for field in fields))
    assert (steps[0], steps[1], steps[-1]) == ("0-19", "20-39", "940-")


def test_bins_of_the_ulp_histogram(audits: dict[str, Audit]) -> None:
    assert [
        (bar["distance"], bar["elements"]) for bar in values(drawn(audits["divergent"])["ulp"])
    ] == [
        ("0", 65124),
        ("1", 300),
        ("2-3", 112),
    ]


def test_layers_beside_what_rounding_explains(audits: dict[str, Audit]) -> None:
    found = values(drawn(audits["drifted"])["depth"])
    assert [one["what"] for one in found[:2]] == ["between the runs", "what rounding explains"]
    assert found[0]["layer"] == "transformer.h.0.mlp"
    assert (found[0]["rms"], found[1]["rms"]) == (1e-7, 9.2e-6)
    assert len(found) == 24


def test_own_errors_beside_what_they_inherit(audits: dict[str, Audit]) -> None:
    found = values(drawn(audits["own-errors"])["own"])
    assert {one["what"] for one in found[:4]} == {
        "its own error",
        "with what it inherits",
        "here, from float64",
        "there, from float64",
    }
    assert found[0]["place"] == "transformer.h.0.ln_1 · native_layer_norm (forward)"


@pytest.mark.parametrize("name", ["overview", "own-errors", "overview-hostile"])
def test_static_pictures_are_the_same_svg_each_time(audits: dict[str, Audit], name: str) -> None:
    for picture, other in zip(
        pictures(audits[name], width=720), pictures(audits[name], width=720), strict=True
    ):
        svg = static(picture)
        assert svg == static(other)
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        assert not [one for one in root.iter() if one.tag.endswith(("script", "image"))]


NUMBERS = [float("nan"), float("inf"), -float("inf"), 0.0]


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_no_number_is_not_drawn_and_said(audits: dict[str, Audit], number: float) -> None:
    audit = audits["own-errors"]
    assert audit.drift is not None
    assert audit.own is not None
    steps = (replace(audit.drift.steps[0], losses=(number, 1.0), forward=number, weights=number),)
    gaps = tuple(
        replace(gap, deviation=replace(gap.deviation, rms=number)) for gap in audit.drift.layers
    )
    errors = tuple(replace(e, own=replace(e.own, rms=number)) for e in audit.own.errors)
    unlike = replace(
        audit,
        drift=replace(audit.drift, layers=gaps, steps=steps + audit.drift.steps[1:]),
        own=replace(audit.own, errors=errors),
        overview=replace(SMALL, heat=replace(SMALL.heat, rms=((number,) * 3,) * 3)),
    )
    found = drawn(unlike)
    for picture in found.values():
        json.dumps(picture.spec, allow_nan=False)
    said = number == 0.0 or f"Not drawn: {number} in step 0 of a100.audit." in found["loss"].says
    assert said
    assert "No size to draw in step 0." in found["steps"].says


def test_integers_have_no_ulp(audits: dict[str, Audit]) -> None:
    picture = drawn(audits["divergent-integers"])["ulp"]
    assert "ULP" not in picture.says + json.dumps(picture.spec)


def test_long_names_are_cut_in_the_middle(audits: dict[str, Audit]) -> None:
    long = "a" * 200 + "." + "b" * 200
    heat = replace(SMALL.heat, modules=(long, "emb", "head"))
    picture = drawn(replace(audits["overview"], overview=replace(SMALL, heat=heat)))["heat"]
    assert values(picture)[0]["module"] == "a" * 60 + "…" + "b" * 60

"""What is drawn: the values behind each picture, and that a picture is always the same."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from repro_audit.model import Audit
from repro_audit.report.charts import Picture, pictures, static


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
        "rms": None,
        "size": "not measured",
    }
    assert {"differ": "3 of 4 events", "share": 0.75, "rms": 0.5}.items() <= fields[5].items()


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

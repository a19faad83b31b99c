"""What is said of checkpoints that were compared."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from repro_audit.audit import compare_checkpoints
from repro_audit.model import Comparison
from repro_audit.report.checkpoints import render_text, to_json, to_markdown

GOLD = Path(__file__).parent / "gold-checkpoints"
SCHEMA = json.loads(files("repro_audit.report").joinpath("schema/checkpoints-1.json").read_text())


def compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *held: Mapping[str, np.ndarray], **options
) -> Comparison:
    monkeypatch.chdir(tmp_path)
    names = []
    for letter, arrays in zip("abcdefghijklm", held, strict=False):
        np.savez(f"{letter}.npz", **arrays)
        names.append(Path(f"{letter}.npz"))
    return replace(compare_checkpoints(names, **options), engine="portable")


FLOATS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
BASE = {f"layers.{i}.w": FLOATS + np.float32(i) for i in range(8)}
NEAR = {name: np.nextafter(held, np.float32(99)) for name, held in BASE.items()}


@pytest.fixture(
    params=["identical", "near", "far", "corrupt", "within", "several", "other", "converted"]
)
def named(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Comparison]:
    flipped = FLOATS.copy()
    flipped.view(np.uint32)[0, 0] ^= np.uint32(1 << 30)
    corrupt = {**BASE, "layers.2.w": BASE["layers.2.w"].copy()}
    corrupt["layers.2.w"].view(np.uint32)[1, 1] ^= np.uint32(1 << 21)
    far = {
        **BASE,
        "layers.0.w": flipped,
        "layers.1.w": FLOATS[:2],
        "layers.2.w": FLOATS.astype(np.int32),
        "new": np.ones(2),
        "b\x1b[31m": np.zeros(3),
    }
    del far["layers.7.w"]
    far["moved"] = BASE["layers.7.w"]
    half = {name: held.astype(np.float16) for name, held in BASE.items()}
    cases = {
        "identical": ([BASE, BASE], {}),
        "near": ([BASE, NEAR], {}),
        "far": ([BASE, far], {}),
        "corrupt": ([BASE, corrupt], {}),
        "within": ([BASE, NEAR], {"ulp": 4, "ignored": ("layers.3*",)}),
        "several": ([BASE, BASE, NEAR], {}),
        "other": ([BASE, {"x": np.ones(3)}], {}),
        "converted": ([BASE, half], {}),
    }
    held, options = cases[request.param]
    return request.param, compared(tmp_path, monkeypatch, *held, **options)


def test_text_is_as_it_was_looked_at(named: tuple[str, Comparison]) -> None:
    name, comparison = named
    text = render_text(comparison)
    assert text == (GOLD / f"{name}.txt").read_text()
    assert max(map(len, text.splitlines())) <= 80


def test_json_fits_its_schema(named: tuple[str, Comparison]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    text = to_json(named[1])
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(text))
    assert text.isascii()


def test_markdown_says_it_too(named: tuple[str, Comparison]) -> None:
    text = to_markdown(named[1])
    assert "\x1b" not in text
    assert named[1].files[0].digest in text
    assert text.splitlines()[-1].startswith("`repro-audit compare")


def test_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = compared(tmp_path, monkeypatch, {}, {})
    assert (empty.verdict, empty.reason) == ("inconclusive", "there is nothing in them to compare")
    renamed = compared(tmp_path, monkeypatch, {"a": FLOATS}, {"b": FLOATS})
    assert renamed.verdict == "divergent"

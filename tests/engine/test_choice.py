"""Forcing an engine: what is not there is an error that names what is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from repro_audit import _engine, engine
from repro_audit.engine import choice, kernels
from repro_audit.errors import EngineError


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    engine.select(None)


def test_select(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in engine.available():
        assert engine.select(name) == engine.name() == name
        assert engine.info()["forced"]
        monkeypatch.setenv(choice.VARIABLE, name)
        assert engine.select(None) == name
        assert engine.name_for("cpu") == name
        away = name if name in {"torch", "cuda", "cupy"} else f"{name} (host copy)"
        assert engine.name_for("cuda") == away
    monkeypatch.delenv(choice.VARIABLE)
    assert engine.select(None) == _engine.engines()[0] == _engine.engine()
    assert not engine.info()["forced"]
    assert engine.name_for("mps") == "torch"
    run = [way for way in ("cuda", "cupy") if not kernels.problem(way)]
    assert engine.name_for("cuda") == [*run, "torch"][0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("neon", "is not available here"),
        ("cuda", "not available"),
        ("cupy", "not available"),
        ("quick", "is no engine"),
    ],
)
def test_a_missing_engine_is_an_error(name: str, words: str) -> None:
    before = engine.name()
    with pytest.raises(EngineError, match=f"{name}.*{words}.*portable.*reference"):
        engine.select(name)
    assert engine.name() == before


@pytest.mark.parametrize("name", [*engine.available(), "cupy", "quick"])
def test_the_environment_forces(name: str) -> None:
    code = (
        "import torch; from repro_audit import engine;"
        "print(engine.tensor_digest(torch.arange(100.0)).hex(), engine.name())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {choice.VARIABLE: name},
        capture_output=True,
        text=True,
        check=False,
    )
    if name in engine.available():
        assert done.stdout.split() == ["006185efed71d1155304dca8dfe5f002", name]
    else:
        assert done.returncode != 0
        assert f"EngineError: The engine '{name}' is n" in done.stderr


def test_info_says_what_a_manifest_needs() -> None:
    info = engine.info()
    assert set(info) == {
        "engine",
        "forced",
        "available",
        "digest_version",
        "machine",
        "cpu_features",
        "threads",
    }
    assert info["digest_version"] == engine.DIGEST_VERSION == _engine.DIGEST_VERSION
    assert info["threads"] == len(os.sched_getaffinity(0))

"""Call sites: the innermost line of a program or package, and the program's own that led there."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repro_audit.capture.locations import Locator


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Any]:
    """Defines functions in files of an environment, as virtual environments lay it out."""
    library = tmp_path / "env/lib/python3.11"
    paths = {
        **sysconfig.get_paths(),
        "platstdlib": str(library),
        "purelib": str(library / "site-packages"),
        "platlib": str(library / "site-packages"),
    }
    monkeypatch.setattr(sysconfig, "get_paths", lambda: paths)

    def defined(path: str, code: str) -> Any:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        names: dict[str, Any] = {}
        exec(compile(code, str(file), "exec"), names)
        return names["f"]

    return defined


CALL = "def f(g, *rest):\n    return g(*rest)\n"
HERE = "import sys\ndef f():\n    return sys._getframe()\n"


def sites(base: Path) -> tuple[Locator, list[tuple[str, str | None]]]:
    found: list[tuple[str, str | None]] = []

    def register(location: str, called_from: str | None) -> int:
        found.append((location, called_from))
        return len(found) - 1

    return Locator((str(base),), register), found


def test_a_package_s_line_and_the_program_s(place: Any, tmp_path: Path) -> None:
    site = "env/lib/python3.11/site-packages"
    program, inner = place("project/train.py", CALL), place(f"{site}/nets/layers.py", HERE)
    outer = place(f"{site}/trainer.py", CALL)
    locator, found = sites(tmp_path / "project")
    at = program(outer, inner)
    assert locator.number(at) == locator.number(at) == 0
    assert found == [("nets/layers.py:3", "train.py:2")]
    assert locator.line(at) == "nets/layers.py:3 from train.py:2"
    # From another line of the program it is another site.
    other = place("project/evaluate.py", CALL)
    assert locator.number(other(inner)) == 1
    assert found[1] == ("nets/layers.py:3", "evaluate.py:2")


def test_the_program_s_own_line_alone(place: Any, tmp_path: Path) -> None:
    """Also where a package calls it: a callback."""
    program = place("project/train.py", HERE)
    trainer = place("env/lib/python3.11/site-packages/trainer.py", CALL)
    locator, found = sites(tmp_path / "project")
    locator.number(trainer(program))
    assert found == [("train.py:3", None)]


@pytest.mark.parametrize("base", ["project", "."])
def test_the_standard_library_is_passed_over(place: Any, tmp_path: Path, base: str) -> None:
    """Also where the program's directory has the interpreter below it."""
    program = place(f"{base}/train.py", CALL)
    library = place("env/lib/python3.11/functools.py", HERE)
    locator, found = sites(tmp_path / base)
    locator.number(program(library))
    assert found == [("train.py:2", None)]
    assert locator.direct(program(library)) is None


@pytest.mark.parametrize("name", ["<ipython-input-3-0a1b>", "<python-input-0>", "<stdin>"])
def test_what_is_typed_at_a_prompt_is_the_program_s(place: Any, tmp_path: Path, name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(compile(HERE, name, "exec"), namespace)
    shell = place("env/lib/python3.11/site-packages/IPython/shell.py", CALL)
    locator, found = sites(tmp_path / "project")
    locator.number(shell(namespace["f"]))
    assert found == [(f"{name}:3", None)]


def test_a_program_that_is_a_package(place: Any, tmp_path: Path) -> None:
    package = place("env/lib/python3.11/site-packages/pkg/train.py", HERE)
    locator, found = sites(tmp_path / "project")
    locator.number(package())
    assert found[0][0] == "pkg/train.py:3"


def test_a_line_asked_for_before_its_number(place: Any, tmp_path: Path) -> None:
    """What is known of a file must not depend on who asked first."""
    program = place("project/train.py", CALL)
    package = place("env/lib/python3.11/site-packages/noise.py", HERE)
    locator, found = sites(tmp_path / "project")
    at = program(package)
    assert locator.line(at.f_back) == "train.py:2"
    locator.number(at)
    assert found == [("noise.py:3", "train.py:2")]

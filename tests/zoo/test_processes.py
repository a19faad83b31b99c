"""Programs of several processes: each clean, undisturbed, and its fault found in its process."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).resolve().parent / "programs"


@dataclass(frozen=True)
class Case:
    """A program, its words, and where its fault is; `ci` names the tests of CI's fixed sample."""

    program: str
    process: str
    thread: str = ""
    module: str = ""
    rank: int = 0
    phase: str = "forward"
    processes: frozenset[str] = frozenset({"1", "2"})
    may_warn: frozenset[str] = frozenset()
    ci: tuple[str, ...] = ()


ONE = frozenset({"1"})
NONE: frozenset[str] = frozenset()

CASES = [
    Case("children spawn", "2", module="3"),
    Case("children forkserver", "2", module="3"),
    Case("children fork-process", "2", module="3"),
    Case("children fork", "2", module="3", ci=("clean",)),
    Case("children fork-that-returns", "1", module="3", processes=ONE),
    Case("children fork-that-raises", "1", module="3", processes=ONE),
    Case("children command", "2", module="3"),
    Case("children shell", "sh-1~2", module="3", processes=frozenset({"sh-1", "sh-1~2"})),
    Case("children replaced", "1", module="3", processes=ONE),
    Case("children leaves", "", module="3", processes=NONE, ci=("clean",)),
    Case("children moved", "1", module="3", processes=ONE),
    Case("children silent", "1", module="3", processes=ONE),
    Case("pools pool fork", "1", "1.2", processes=ONE, ci=("fault",)),
    Case("pools pool spawn", "1", "1.2", processes=ONE),
    Case("pools pool forkserver", "1", "1.2", processes=ONE),
    Case("pools torch fork", "1", "1.4", processes=ONE),
    Case("pools torch spawn", "1", "1.4", processes=ONE),
    Case("pools executor fork", "1", "4", processes=ONE),
    Case("pools executor spawn", "1", "4", processes=ONE),
    Case("ranks 2", "2", module="module", rank=1),
    Case("-m torch.distributed.run --nproc-per-node 2 ranks.py", "2", module="module", rank=1),
]


def of_kind(kind: str) -> list[object]:
    """The cases of one test, those beyond CI's sample marked."""
    return [
        pytest.param(case, id=case.program, marks=() if kind in case.ci else (pytest.mark.whole,))
        for case in CASES
    ]


def words_of(case: Case) -> tuple[str, tuple[str, ...]]:
    """The program, and its words."""
    if case.program.startswith("-m "):
        option, module, *words, script = case.program.split()
        return f"{option} {module}", (*words, str(PROGRAMS / script))
    program, *words = case.program.split()
    return program, tuple(words)


def line(case: Case) -> str:
    """Where its fault is called."""
    name = "ranks" if "ranks" in case.program else case.program.partition(" ")[0]
    path = PROGRAMS / f"{name}.py"
    lines = path.read_text().splitlines()
    wanted = r"fault\(self|self\.op\(|planted\(\)\("
    calls = [at for at, text in enumerate(lines, 1) if re.search(wanted, text)]
    (at,) = calls
    return f"{path.name}:{at}"


@pytest.mark.parametrize("case", of_kind("clean"))
def test_clean(zoo, case: Case) -> None:
    program, words = words_of(case)
    result = zoo(program, "--self-check", words=words)
    assert result.code == 0, result.stderr
    assert result.report["verdict"] == "identical"
    assert result.report["confirmation"]["holds"]
    assert result.report["self_check"]["differing"] == []
    assert result.report["self_check"]["varying"] == []
    assert result.report["self_check"]["compared"] > 1
    assert set(result.warned()) <= case.may_warn
    assert result.unbound() == []
    assert {event.key.process for event in result.events()} - {""} == case.processes


@pytest.mark.parametrize("case", of_kind("fault"))
def test_planted(zoo, case: Case) -> None:
    program, words = words_of(case)
    result = zoo(program, fault=True, words=words)
    assert result.code == 1, result.stderr
    found = result.report["first_divergence"]
    assert result.named() == (case.phase, case.module, "zoo.fault.default")
    assert (found["process"], found["thread_name"]) == (case.process, case.thread)
    assert found["rank"] == case.rank
    assert found["call_site"] == line(case)
    assert found["inputs_identical"] is True
    assert found["ulp"]["differing"] == 1


@pytest.mark.parametrize(
    "way",
    [
        # It learns only after its start which process it is.
        pytest.param("forkserver"),
        pytest.param("fork", marks=pytest.mark.whole),
        pytest.param("spawn", marks=pytest.mark.whole),
        pytest.param("command", marks=pytest.mark.whole),
    ],
)
def test_from_a_module_of_a_process_to_its_op(zoo, way: str) -> None:
    result = zoo("children", "--level", "modules", fault=True, words=(way,))
    assert result.code == 1, result.stderr
    assert result.named() == ("forward", "3", "zoo.fault.default")
    assert result.report["first_divergence"]["process"] == "2"
    assert result.report["first_divergence"]["ulp"]["differing"] == 1


@pytest.mark.interpreter
def test_with_a_sitecustomize_of_its_own(zoo, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"with open({str(tmp_path / 'sited')!r}, 'a') as sited:\n"
        "    print(os.getpid(), file=sited)\n"
    )
    result = zoo("children", fault=True, words=("command",), PYTHONPATH=str(site))
    assert result.code == 1, result.stderr
    assert result.report["first_divergence"]["process"] == "2"
    assert result.named() == ("forward", "3", "zoo.fault.default")
    # The audit's own process; the program's, and two that it starts, in two runs and two more.
    assert len((tmp_path / "sited").read_text().split()) == 1 + 4 * 3

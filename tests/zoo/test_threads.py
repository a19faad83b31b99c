"""Programs of several threads: each clean, undisturbed, and its fault found in its thread."""

from __future__ import annotations

from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parent / "programs" / "threads.py"


CALLS = {
    "models": "self.fault(",
    "elsewhere": "self.fault(",
    "pools": "fault(total)",
    "background": "fault(torch.",
}


def line(word: str) -> str:
    """Where the fault is called."""
    lines = PROGRAM.read_text().splitlines()
    (at,) = (at for at, text in enumerate(lines, 1) if CALLS[word] in text)
    return f"threads.py:{at}"


@pytest.mark.parametrize(
    ("word", "warned", "leaves"),
    [
        # Parameters of a model that other threads run are first recorded when a step has ended.
        ("models", set(), 8),
        pytest.param("pools", set(), 0, marks=pytest.mark.whole),
        pytest.param("elsewhere", set(), 8, marks=pytest.mark.whole),
        pytest.param("background", {"RA109"}, 0, marks=pytest.mark.whole),
    ],
)
def test_clean(zoo, word: str, warned: set[str], leaves: int) -> None:
    result = zoo("threads", "--self-check", words=(word,))
    assert result.code == 0, result.stderr
    assert result.report["verdict"] == "identical"
    assert result.report["confirmation"]["holds"]
    assert result.report["self_check"]["differing"] == []
    assert result.report["self_check"]["varying"] == []
    assert result.report["self_check"]["compared"] > 1
    assert set(result.warned()) == warned
    assert result.unbound() == ["aten.detach.default"] * leaves


@pytest.mark.parametrize(
    ("word", "thread"),
    [
        pytest.param("models", "2", marks=pytest.mark.whole),
        pytest.param("pools", "", marks=pytest.mark.whole),
        pytest.param("elsewhere", "2", marks=pytest.mark.whole),
        pytest.param("background", "", marks=pytest.mark.whole),
    ],
)
def test_planted_in_the_forward(zoo, word: str, thread: str) -> None:
    result = zoo("threads", fault=True, words=(word,))
    assert result.code == 1, result.stderr
    found = result.report["first_divergence"]
    assert result.named() == ("forward", "", "zoo.fault.default")
    assert found["thread_name"] == thread
    assert found["call_site"] == line(word)
    assert found["inputs_identical"] is True
    assert found["ulp"]["differing"] == 1


@pytest.mark.parametrize(
    ("word", "thread"),
    [
        pytest.param("models", "2", marks=pytest.mark.whole),
        pytest.param("elsewhere", "", marks=pytest.mark.whole),
    ],
)
def test_planted_in_the_backward(zoo, word: str, thread: str) -> None:
    """Also where another thread has built the graph that a thread runs backward."""
    result = zoo("threads", fault=True, words=(word,), PLANT_PHASE="backward")
    assert result.code == 1, result.stderr
    found = result.report["first_divergence"]
    assert result.named() == ("backward", "", "zoo.fault_back.default")
    assert found["thread_name"] == thread
    assert found["caused_by"]["op"] == "zoo.fault.default"
    assert found["caused_by"]["call_site"] == line(word)
    assert found["inputs_identical"] is True
    assert found["ulp"]["differing"] == 1


def test_a_daemon_that_works_to_the_end(zoo) -> None:
    result = zoo("threads", "--no-confirm", "--runs", "4", words=("late",))
    assert result.code == 0, result.stderr
    assert result.warned() == ["RA109"]


@pytest.mark.whole
def test_threads_that_share_a_generator(zoo) -> None:
    result = zoo("threads", words=("shared",))
    assert result.code == 1, result.stderr
    found = result.report["first_divergence"]
    assert result.named() == ("forward", "", "aten.randn.default")
    assert found["thread_name"] in {"1", "2"}

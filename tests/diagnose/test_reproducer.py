"""Scripts that show a divergence: they run with torch alone, and say what they are to say."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from repro_audit.capture.calls import Call
from repro_audit.diagnose.reproducer import Condition, script_of_call, script_of_program
from repro_audit.model import Target

ALIKE = Condition(hash_seed=0, seed=0)


def ran(path: Path) -> subprocess.CompletedProcess[str]:
    """A script, in a Python that finds nothing of ours."""
    text = f"import sys, runpy; sys.modules['repro_audit'] = None; runpy.run_path({str(path)!r})"
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False, timeout=200
    )


@pytest.fixture
def shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Keep a call, write its script, run it here, where nothing of ours can be imported then."""
    threads = torch.get_num_threads()

    def run(op: str, *args: Any, times: int = 3, **kwargs: Any) -> tuple[int, str]:
        written(tmp_path, op, *args, times=times, **kwargs)
        monkeypatch.setitem(sys.modules, "repro_audit", None)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(tmp_path / "reproduce.py"))
        return int(ended.value.code or 0), capsys.readouterr().out

    yield run
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def written(
    place: Path, op: str, *args: Any, times: int, scratch: tuple[int, ...] = (), **kwargs: Any
) -> None:
    """The script of a call, with its inputs."""
    call = Call(op, args, kwargs, "rand" in op, scratch)
    held = {f"memory_{n}": span.bytes().numpy() for n, span in enumerate(call.spans)}
    held |= {f"generator_{n}": state.numpy() for n, state in enumerate(call.states)}
    save_file(
        {name: np.ascontiguousarray(data) for name, data in held.items()},
        place / "inputs.safetensors",
    )
    described = json.loads(json.dumps(call.json))
    script = script_of_call(described, about=["An op.", 'Says """ and \\ too.'], times=times)
    (place / "reproduce.py").write_text(script)


BASE = torch.arange(48.0).reshape(6, 8)


def test_scratch_is_not_compared(shown) -> None:
    """Of a call that draws, and is not told from what: both its results vary."""
    dropout = ("aten.native_dropout.default", BASE, 0.5, True)
    assert shown(*dropout, times=9)[0] == 1
    assert shown(*dropout, times=9, scratch=(0,))[0] == 1
    assert shown(*dropout, times=9, scratch=(0, 1))[0] == 0


@pytest.mark.parametrize(
    ("op", "args", "kwargs"),
    [
        ("aten.mm.default", (BASE, BASE.t()), {}),
        ("aten.add_.Tensor", (BASE[1:3, ::2], BASE[0, :4].expand(2, 4)), {"alpha": 0.5}),
        ("aten.cat.default", ([BASE[:0], BASE, BASE.view(-1)[3:19].view(2, 8)],), {}),
        ("aten.sum.dim_IntList", (BASE.bfloat16(), [0]), {"dtype": torch.float32}),
        ("aten.mul.Tensor", (torch.complex(BASE, BASE).conj(), float("inf")), {}),
        ("aten.rand.default", ([3],), {"device": torch.device("cpu")}),
        ("aten.rand.generator", ([3],), {"generator": torch.Generator().manual_seed(4)}),
        ("aten.bitwise_not.default", (BASE > 3,), {}),
    ],
)
def test_a_call_that_does_not_vary(shown: Any, op: str, args: Any, kwargs: Any) -> None:
    code, said = shown(op, *args, **kwargs)
    assert code == 0
    assert "1 distinct results in 3 calls" in said


def test_a_call_that_varies(shown: Any) -> None:
    """It draws from a generator that nobody sets back: not kept, as far as the call knows."""
    code, said = shown("aten.bernoulli.p", BASE, 0.5)
    assert code == 1
    assert "3 distinct results in 3 calls" in said
    assert "two of them differ in" in said


def test_settings_are_as_they_were(shown: Any, tmp_path: Path) -> None:
    torch.backends.cudnn.benchmark = True
    torch.set_default_dtype(torch.float64)
    try:
        code, _ = shown("aten.mm.default", BASE, BASE.t())
    finally:
        torch.backends.cudnn.benchmark = False
        torch.set_default_dtype(torch.float32)
    assert code == 0
    lines = (tmp_path / "reproduce.py").read_text().splitlines()
    at = lines.index("torch.backends.cudnn.benchmark = True")
    assert lines[at + 1] == "torch.set_default_dtype(torch.float64)"
    # What torch begins with is not set: the script stays short.
    assert not any("mkldnn" in line for line in lines)


def test_torch_alone_is_enough(tmp_path: Path) -> None:
    written(tmp_path, "aten.mm.default", BASE, BASE.t(), times=2)
    done = ran(tmp_path / "reproduce.py")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("program", "other", "op"),
    [
        ("import os, torch\ntorch.tensor([*os.urandom(8)]).sin()", ALIKE, "aten.lift_fresh"),
        (
            "import torch\nfor n in {'a', 'b', 'c', 'd', 'e'}: torch.tensor([ord(n)]).sin()",
            Condition(hash_seed=5, seed=0),
            "aten.lift_fresh",
        ),
        ("import torch\ntorch.empty(64).sin()", Condition(0, 0, fill=127), "aten.sin"),
        pytest.param(
            "import torch\ntorch.rand(3).sin()",
            Condition(0, None),
            "aten.rand",
            marks=pytest.mark.whole,
        ),
        pytest.param(
            "import os, torch\nfor n in os.listdir(): torch.tensor([*n.encode()]).sin()",
            Condition(0, 0, reversed_listings=True),
            "aten.lift_fresh",
            marks=pytest.mark.whole,
        ),
    ],
)
def test_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, other: Condition, op: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(program)
    for name in ("out", "apart", "z"):
        (tmp_path / name).mkdir()
    target = Target("script", "train.py", args=("--lr", "0.1"))
    path = tmp_path / "out" / "reproduce.py"
    path.write_text(script_of_program(target, "../train.py", ALIKE, other, about=["About."]))
    done = ran(path)
    assert (done.returncode, done.stderr) == (1, "")
    assert op in done.stdout.splitlines()[1]


def test_a_program_that_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(
        "import sys, torch\ntorch.rand(3).sin()\nassert sys.argv[1:] == ['x']"
    )
    target = Target("script", "train.py", args=("x",))
    (tmp_path / "reproduce.py").write_text(
        script_of_program(target, "train.py", ALIKE, ALIKE, about=["About."]).replace("= 10", "= 1")
    )
    done = ran(tmp_path / "reproduce.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 pairs of runs agree" in done.stdout


def test_a_model_file_is_no_program() -> None:
    with pytest.raises(ValueError, match="no program of its own"):
        script_of_program(Target("class", "net.py", "Net"), "net.py", ALIKE, ALIKE, about=[])


@pytest.mark.parametrize(
    ("device", "line"),
    [
        ("cpu", 'torch.default_generator.set_state(stored("generator_0"))'),
        ("cuda:1", "torch.cuda.set_rng_state(stored(\"generator_0\"), 'cuda:1')"),
        ("mps:0", "torch.mps.set_rng_state(stored(\"generator_0\"), 'mps:0')"),
    ],
)
def test_a_device_s_generator_is_set_by_its_own_function(device: str, line: str) -> None:
    call = dict(Call("aten.bernoulli.p", (torch.rand(3), 0.5), {}, True).json)
    call["generators"] = [{"device": device, "own": False}]
    assert line in script_of_call(call, about=(), times=3)

"""Whether a resumed run equals a straight one: what was not restored is named, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parent.parent / "programs"
RESUME = ("--again", "--resume last.pt")


@pytest.fixture
def resumed(audit: Callable[..., Any], tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """Exit code and JSON report of `repro-audit resume resumable.py WORD…`."""
    shutil.copy(PROGRAMS / "resumable.py", tmp_path)

    def call(*words: str, at: tuple[str, ...] = ("--at", "5", *RESUME)) -> tuple[int, Any]:
        found = audit("resume", "resumable.py", *at, "--format", "json", *words)
        assert found.stdout, found.stderr
        return found.code, json.loads(found.stdout)

    return call


@dataclass(frozen=True)
class Fault:
    """What is not restored, and what must be said of it."""

    forgotten: str
    site: tuple[int, str, str, str]
    evidence: str
    differing: dict[tuple[str, str], int]


FAULTS = (
    Fault(
        "weights",
        (5, "weights", "last", "param:bias"),
        "1 of 9 weights are not the straight run's: last.bias",
        {("weights", ""): 1},
    ),
    Fault(
        "buffers",
        (5, "weights", "norm", "param:running_mean"),
        "2 of 9 weights are not the straight run's: norm.running_mean, norm.running_var",
        {("weights", ""): 2},
    ),
    Fault(
        "model",
        (5, "weights", "first", "param:weight"),
        "9 of 9 weights are not the straight run's: first.weight, first.bias, norm.weight and 6 "
        "more",
        {("weights", ""): 9},
    ),
    Fault(
        "optimizer",
        (5, "optimizer", "", "state:AdamW"),
        "AdamW keeps nothing: tensors=0, not 18",
        {("optimizer", "AdamW"): 19, ("options", "AdamW"): 1},
    ),
    Fault(
        "moments",
        (5, "optimizer", "", "state:AdamW"),
        "AdamW keeps other values: first.weight.exp_avg, first.bias.exp_avg, norm.weight.exp_avg "
        "and 3 more",
        {("optimizer", "AdamW"): 6},
    ),
    Fault(
        "lr",
        (5, "optimizer", "", "options:AdamW"),
        "AdamW has other options: group0.lr=0.01, not 0.0025",
        {("options", "AdamW"): 1},
    ),
    Fault(
        "schedule",
        (6, "optimizer", "", "options:AdamW"),
        "AdamW's options begin the same and then change otherwise",
        {},
    ),
    Fault(
        "torch",
        (5, "forward", "drop", "aten.bernoulli_.float"),
        "torch's generator is not in the state that the straight run had",
        {("generator", "torch"): 1},
    ),
    Fault(
        "numpy",
        (5, "data", "", "aten.lift_fresh.default"),
        "NumPy's generator is not in the state that the straight run had",
        {("generator", "numpy"): 1, ("data", ""): 1},
    ),
    Fault(
        "python",
        (5, "forward", "", "aten.mul.Tensor"),
        "Python's generator is not in the state that the straight run had",
        {("generator", "python"): 1},
    ),
    Fault(
        "averages",
        (5, "forward", "", "aten.sub.Tensor"),
        "the straight run has there what aten.lerp_.Scalar gave at resumable.py:116, the resumed "
        "run does not",
        {},
    ),
    Fault(
        "data",
        (5, "data", "", "aten.stack.default"),
        "it takes other data in this step",
        {("data", ""): 1},
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.forgotten)
def test_what_was_not_restored_is_named(resumed, fault: Fault) -> None:
    code, report = resumed("--", "--forget", fault.forgotten)
    assert (code, report["verdict"]) == (1, "divergent")
    origin = report["first_divergence"]
    assert (origin["step"], origin["phase"], origin["module"], origin["op"]) == fault.site
    assert report["cause"]["class"] == "unrestored-state"
    assert report["cause"]["evidence"][0] == fault.evidence
    assert {
        (item["what"], item["name"]): item["differing"]
        for item in report["resumption"]["state"]
        if item["differing"]
    } == fault.differing


HARMLESS = {
    "plain": (),
    "an-older-checkpoint": ("--every", "2"),
    "caches-made-at-first-use": ("--lazy",),
    "evaluation-and-accumulation": ("--evaluate", "--accumulate", "2", "--every", "3", "--lazy"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_run_that_restores_all_is_identical(resumed, name: str) -> None:
    code, report = resumed("--", *HARMLESS[name])
    assert (code, report["verdict"]) == (0, "identical"), report["first_divergence"]
    found = report["resumption"]
    step = {"an-older-checkpoint": 4, "evaluation-and-accumulation": 3}.get(name, 5)
    assert (found["step"], found["ended"], found["compared"]) == (step, 5, 9 - step)
    assert found["read"] == ["last.pt"]
    assert [item["differing"] for item in found["state"]] == [0] * 7


def test_the_text_says_where_it_goes_on_and_with_what(audit, tmp_path: Path) -> None:
    shutil.copy(PROGRAMS / "resumable.py", tmp_path)
    found = audit("resume", "resumable.py", "--at", "5", *RESUME, "--", "--forget", "torch")
    assert found.code == 1
    lines = found.stdout.splitlines()
    assert lines[0] == (
        "DIVERGENT  step 5 · forward · drop · aten.bernoulli_  (at resumable.py:40)"
    )
    assert "  resumed at step 5 of 9 from last.pt; the first part had made 5 steps" in lines
    assert "  state   weights same, data same, torch generator differs," in lines
    assert all(len(line) <= 80 for line in lines)
    assert not (tmp_path / "last.pt").exists()


def test_a_program_may_resume_by_itself(resumed, tmp_path: Path) -> None:
    program = tmp_path / "resumable.py"
    program.write_text(program.read_text().replace('"last.pt"', '"auto.pt"'))
    code, report = resumed(at=("--at", "5"))
    assert (code, report["resumption"]["read"]) == (0, ["auto.pt"])


def test_the_first_part_may_end_by_itself(resumed) -> None:
    code, report = resumed(at=("--first", "--steps 4", *RESUME))
    assert (code, report["resumption"]["step"], report["resumption"]["ended"]) == (0, 4, 4)


def test_steps_limit_what_is_compared(resumed) -> None:
    code, report = resumed("--steps", "7")
    found = report["resumption"]
    assert (code, found["straight"], found["resumed"], found["compared"]) == (0, 7, 2, 2)
    assert report["manifest_differences"] == []


def test_a_count_that_is_not_restored_is_a_structural_divergence(audit, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os, torch\n"
        "torch.manual_seed(0)\n"
        "m = torch.nn.Linear(4, 4)\n"
        "o = torch.optim.SGD(m.parameters(), lr=0.1)\n"
        "if os.path.exists('c.pt'):\n"
        "    m.load_state_dict(torch.load('c.pt'))\n"
        "for step in range(6):\n"
        "    o.zero_grad()\n"
        "    m(torch.ones(2, 4)).square().sum().backward()\n"
        "    o.step()\n"
        "    torch.save(m.state_dict(), 'c.pt')\n"
    )
    found = audit("resume", "train.py", "--at", "3", "--format", "json")
    report = json.loads(found.stdout)
    assert found.code == 1
    assert report["first_divergence"]["kind"] == "structural"
    assert report["first_divergence"]["step"] == 6
    assert report["cause"]["evidence"] == [
        "it goes on to step 9, the straight run to step 6",
    ]


def test_a_program_that_does_not_repeat_itself_is_inconclusive(resumed, tmp_path: Path) -> None:
    program = tmp_path / "resumable.py"
    program.write_text(program.read_text().replace("np.random.seed(1)", "np.random.seed()"))
    code, report = resumed()
    assert (code, report["verdict"]) == (4, "inconclusive")
    assert "the first part already differs from the straight run" in report["reason"]
    assert report["first_divergence"]["op"] == "seed:numpy.random.seed"
    assert report["cause"] is None


def test_one_that_varies_later_is_inconclusive_too(resumed, tmp_path: Path) -> None:
    program = tmp_path / "resumable.py"
    text = program.read_text()
    varying = "    optimizer.zero_grad()\n    if step == 6:\n        x = torch.rand(1).item()\n"
    text = text.replace("    optimizer.zero_grad()\n", varying, 1)
    text = text.replace(
        "torch.rand(1).item()", "torch.tensor(float.fromhex(__import__('os').urandom(4).hex()))"
    )
    program.write_text(text)
    code, report = resumed()
    assert (code, report["verdict"]) == (4, "inconclusive")
    assert "does not repeat itself before the runs part" in report["reason"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say where to end the first part: --at STEP, or --first ARGUMENTS"),
        (("--at", "9"), "resumable.py makes 9 steps: --at must be less"),
        (("--at", "5", "--steps", "5"), "--steps 7 at least"),
        (("--at", "5"), "resume resumable.py --at 5 --again '--resume last.pt'"),
        (("--at", "5", "--again", "--lazy"), "though it was given --lazy"),
        (("--at", "2", "--", "--every", "9"), "let it save a checkpoint before --at"),
        (("--at", "5", "--again", "'"), "cannot be split into words"),
        (("--at", "5", "--device", "cpu,cuda"), "name one"),
    ],
)
def test_bad_input_has_a_way_out(audit, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    shutil.copy(PROGRAMS / "resumable.py", tmp_path)
    found = audit("resume", "resumable.py", *words)
    assert (found.code, found.stdout) == (2, "")
    assert said in found.stderr


def test_a_cache_that_goes_with_the_directory_is_no_checkpoint(resumed, tmp_path: Path) -> None:
    program = tmp_path / "resumable.py"
    cached = 'Path(os.environ["XDG_CACHE_HOME"], "kernels")'
    text = program.read_text() + f"\n{cached}.write_text('compiled')\n"
    text = text.replace(
        "start = 0\n", f"start = 0\n{cached}.exists() and {cached}.read_text()\n", 1
    )
    program.write_text(text.replace("import random\n", "import os\nimport random\n", 1))
    code, report = resumed(
        at=("--first", "--steps 5", *RESUME),
    )
    assert (code, report["resumption"]["read"]) == (0, ["last.pt"])
    assert report["warnings"] == []


def test_a_model_file_does_not_resume(audit, tmp_path: Path) -> None:
    text = "def build_model():\n    return 1\ndef build_inputs():\n    return 1\n"
    (tmp_path / "model.py").write_text(text)
    found = audit("resume", "model.py", "--at", "1")
    assert found.code == 2
    assert "neither saves nor resumes" in found.stderr


def test_what_lies_outside_the_directory_is_no_first_part(resumed, audit, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    program = tmp_path / "resumable.py"
    program.write_text(program.read_text().replace('"auto.pt"', repr(str(outside / "auto.pt"))))
    program.write_text(program.read_text().replace('"last.pt"', repr(str(outside / "auto.pt"))))
    found = audit("resume", "resumable.py", "--at", "5")
    assert found.code == 2
    assert "the first part made 0 steps by itself, not 5. The first part read" in found.stderr


RANKS = """
import os
import subprocess
import sys
import uuid
import torch
import torch.distributed as dist
from torch import nn

rank, store, other = int(os.environ.get("RANK", 0)), os.environ.get("STORE"), None
if store is None:
    store = os.path.abspath(uuid.uuid4().hex)
    changes = {"RANK": "1", "STORE": store}
    other = subprocess.Popen([sys.executable, __file__], env={**os.environ, **changes})
dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(rank)
model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 1))
model = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
start = 0
if os.path.exists("0.pt"):
    saved = torch.load(f"{rank if os.path.exists('1.pt') else 0}.pt", weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(saved["generator"])
    start = saved["step"]
for step in range(start, 4):
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(2 * step + rank))
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()
    if rank < SAVING:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "generator": torch.get_rng_state(), "step": step + 1}, f"{rank}.pt")
    dist.barrier()
if other is not None:
    assert other.wait() == 0
dist.destroy_process_group()
"""


@pytest.mark.parametrize("saving", [1, 2])
def test_the_rank_is_named_whose_generator_was_not_restored(
    audit, tmp_path: Path, saving: int
) -> None:
    (tmp_path / "train.py").write_text(RANKS.replace("SAVING", str(saving)))
    found = audit("resume", "train.py", "--at", "2", "--format", "json")
    assert found.stdout, found.stderr
    report = json.loads(found.stdout)
    (torch_generator,) = [s for s in report["resumption"]["state"] if s["name"] == "torch"]
    assert (torch_generator["compared"], report["resumption"]["step"]) == (2, 2)
    if saving == 2:
        assert found.code == 0
        return
    assert found.code == 1
    assert report["first_divergence"]["rank"] == 1
    assert report["first_divergence"]["op"] == "aten.bernoulli_.float"
    assert torch_generator["names"] == ["rank 1"]
    assert report["cause"]["evidence"] == [
        "torch's generator is not in the state that the straight run had: rank 1"
    ]

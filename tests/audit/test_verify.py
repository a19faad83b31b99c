"""Recordings run again, here or as on another machine: what reproduces, and whose error it is."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

# `FACTOR` stands for another machine's arithmetic in one place; nothing else changes with it.
TRAIN = """
import os, sys, torch
from torch import nn
torch.manual_seed(0)
torch.set_num_threads(1)

class Block(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.norm, self.up, self.drop = nn.LayerNorm(32), nn.Linear(32, 32), nn.Dropout(0.1)
        self.factor = factor

    def forward(self, x):
        y = self.up(self.norm(x)) * self.factor
        return x + self.drop(nn.functional.gelu(y))

odd = float(os.environ.get("FACTOR", "1.0"))
net = nn.Sequential(nn.Embedding(50, 32), Block(), Block(odd), Block(), nn.Linear(32, 50))
optimizer = torch.optim.SGD(net.parameters(), float(sys.argv[1]) if sys.argv[1:] else 0.1)
for _ in range(2):
    ids = torch.randint(0, 50, (4, 16))
    loss = nn.functional.cross_entropy(net(ids).flatten(0, 1), ids.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"{loss.item():.4f}")
"""
FACTOR = {"FACTOR": str(1 + 2**-20)}
OTHER_ISA = {"ATEN_CPU_CAPABILITY": "default"}


@pytest.fixture
def recorded(audit, program) -> Callable[..., None]:
    program("train.py", TRAIN)

    def record(output: str, *options: str, **environment: str) -> None:
        result = audit("record", "train.py", "-q", "-o", output, *options, env=environment)
        assert (result.code, result.stderr) == (0, "")

    return record


@pytest.fixture
def verified(audit) -> Callable[..., tuple[int, dict[str, Any]]]:
    def verify(*words: str, **environment: str) -> tuple[int, dict[str, Any]]:
        result = audit("verify", *words, "--format", "json", env=environment)
        assert result.code in {0, 1}, result.stderr
        return result.code, json.loads(result.stdout)

    return verify


def where(found: dict[str, Any]) -> tuple[str, str, str]:
    return found["phase"], found["module"], found["op"]


def test_the_same_steps_give_the_same_result(recorded, verified, tmp_path: Path) -> None:
    recorded("a.audit")
    before = (tmp_path / "a.audit").read_bytes()
    code, report = verified("a.audit")
    assert (code, report["verdict"], report["command"]) == (0, "identical", "verify")
    assert report["start"] is report["drift"] is report["own_errors"] is None
    assert [run["name"] for run in report["runs"]] == ["a.audit", "here"]
    assert (tmp_path / "a.audit").read_bytes() == before
    assert report["warnings"] == []


def test_arguments_and_modes_are_the_recorded_ones(audit, recorded, verified) -> None:
    recorded("a.audit", "--deterministic", "--seed", "7", "--steps", "1", "--", "0.2")
    code, report = verified("a.audit")
    assert (code, report["verdict"]) == (0, "identical")
    (there, here) = (run["manifest"] for run in report["runs"])
    assert here["asked"] == there["asked"]
    assert here["target"]["arguments"] == ["0.2"]


def test_own_error_is_where_the_fault_is_and_the_rest_is_inherited(recorded, verified) -> None:
    recorded("a.audit", "--capture", "full")
    code, report = verified("a.audit", **FACTOR)
    assert code == 1
    assert where(report["first_divergence"]) == ("forward", "2", "aten.mul.Tensor")
    own = report["own_errors"]
    # Forwards and backwards in two steps; whatever else differs has only inherited it.
    assert own["differing"] == own["beyond"] == 4
    assert report["events"]["divergent"] > 60
    assert {
        (error["gap"]["key"]["module"], error["gap"]["key"]["op"]) for error in own["errors"]
    } == {("2", "aten.mul.Tensor")}
    assert own["missing"] == 0
    first = own["first"]
    assert first["total"]["rms"] == pytest.approx(first["own"]["rms"], rel=0.05)
    assert first["own"]["rms"] == pytest.approx(2**-20, rel=0.1)
    # Both are right for the factor that they have.
    assert first["here"]["rms"] < 1e-7


def test_another_isa_errs_by_itself_in_norms_and_softmaxes(recorded, verified) -> None:
    recorded("a.audit", "--capture", "full")
    code, report = verified("a.audit", "--same-start", **OTHER_ISA)
    assert code == 1
    assert report["start"] is not None
    assert report["start"]["weights"][1] == report["start"]["draws"][1] == 0
    assert where(report["first_divergence"]) == (
        "forward",
        "1.norm",
        "aten.native_layer_norm.default",
    )
    own = report["own_errors"]
    assert own["first"]["gap"]["key"]["op"] == "aten.native_layer_norm.default"
    assert 0 < own["differing"] < report["events"]["divergent"]
    assert own["beyond"] == 0
    assert own["first"]["here"]["rms"] < 1e-6
    assert own["first"]["there"]["rms"] < 1e-6
    assert sum(own["nearer"].values()) == own["differing"]


def test_what_rounding_explains_can_be_tolerated(recorded, verified) -> None:
    recorded("a.audit", "--capture", "full")
    start = ("a.audit", "--same-start", "--no-own")
    code, report = verified(*start, "--rounding", **OTHER_ISA)
    assert (code, report["verdict"]) == (0, "within-tolerance")
    code, report = verified(*start, "--ulp-tol", "0", **OTHER_ISA)
    assert (code, report["verdict"]) == (1, "divergent")
    assert report["drift"]["beyond"] == report["drift"]["measured"]
    code, _ = verified("a.audit", "--no-own", "--rounding", FACTOR=str(1 + 2**-10))
    assert code == 1


def test_modules_alone_do_not_tell_what_rounding_explains(audit, recorded) -> None:
    recorded("a.audit", "--level", "modules", "--capture", "full")
    recorded("b.audit", "--level", "modules", "--weights-from", "a.audit", **FACTOR)
    result = audit("compare", "a.audit", "b.audit")
    assert result.code == 1
    assert "not known: how much is added up" in result.stdout
    result = audit("compare", "a.audit", "b.audit", "--rounding")
    assert result.code == 4
    assert "--level ops" in result.stderr


def test_random_numbers_of_another_machine_are_no_origin(audit, recorded, verified) -> None:
    recorded("a.audit")
    code, report = verified("a.audit", **OTHER_ISA)
    assert code == 1
    assert report["first_divergence"] is None
    assert report["reason"] == "the runs did not start equal"
    assert report["start"]["weights"][1] > 0
    assert report["events"]["incomparable"] == report["start"]["draws"][1] > 0
    text = audit("verify", "a.audit", env=OTHER_ISA).stdout
    assert text.startswith("DIVERGENT  the runs did not start equal\n")
    assert "--same-start" in text
    assert max(map(len, text.splitlines())) <= 80


DROPS = """
import os, torch
from torch import nn
torch.manual_seed(0)

class Drop(nn.Module):
    def forward(self, x):
        if os.environ.get("FUSED"):
            return torch.native_dropout(x, 0.5, True)[0]
        return nn.functional.dropout(x, 0.5)

torch.manual_seed(int(os.environ.get("SEED", "0")))
net = nn.Sequential(nn.Linear(16, 16), Drop(), nn.Linear(16, 4))
print(net(torch.ones(8, 16)).square().mean().item())
"""
FUSED, ANOTHER_SEED = {"FUSED": "1"}, {"SEED": "1"}


@pytest.mark.parametrize(("there", "here"), [(FUSED, {}), ({}, FUSED), (FUSED, FUSED)])
def test_a_dropout_drops_the_same_by_one_operator_and_by_several(
    audit, program, recorded, verified, there: dict[str, str], here: dict[str, str]
) -> None:
    """As on an accelerator, and on a CPU."""
    program("train.py", DROPS)
    recorded("a.audit", "--capture", "full", **there)
    code, report = verified("a.audit", "--same-start", **here, **ANOTHER_SEED)
    assert code == (there != here)
    assert {warning["code"] for warning in report["warnings"]} <= {"RA110"}
    # One operator and the four have no counterpart; what is computed from them is the same.
    assert report["events"]["divergent"] == (5 if there != here else 0)


def test_recordings_that_start_from_another(audit, recorded) -> None:
    recorded("a.audit", "--capture", "full")
    everything = [f"--{what}-from=a.audit" for what in ("weights", "inputs", "draws")]
    recorded("b.audit", *everything, **OTHER_ISA)
    result = audit("compare", "a.audit", "b.audit", "--format", "json")
    report = json.loads(result.stdout)
    assert where(report["first_divergence"]) == (
        "forward",
        "1.norm",
        "aten.native_layer_norm.default",
    )
    assert report["start"]["weights"] == [15, 0]
    drift = report["drift"]
    assert drift["measured"] == drift["differing"]
    assert drift["sampled"] == 512
    assert [step["step"] for step in drift["steps"]] == [0, 1]
    one, other = drift["steps"][0]["losses"]
    assert one == pytest.approx(other, rel=1e-6)
    assert drift["layers"][0]["key"]["module"] == "1.norm"


def test_what_the_recording_has_not_is_told(audit, recorded) -> None:
    recorded("a.audit", "--capture", "full", "--steps", "1")
    recorded("b.audit", "--inputs-from", "a.audit", "--steps", "2")
    recorded("c.audit", "--steps", "2")
    report = json.loads(audit("compare", "b.audit", "c.audit", "--format", "json").stdout)
    assert report["verdict"] == "identical"
    (warning,) = report["warnings"]
    assert warning["code"] == "RA113"
    assert "of its inputs itself" in warning["message"]


def test_a_program_that_was_changed(audit, recorded, verified, tmp_path: Path) -> None:
    recorded("a.audit")
    source = tmp_path / "train.py"
    source.write_text(source.read_text().replace("torch.optim.SGD", "torch.optim.Adam"))
    code, report = verified("a.audit")
    assert code == 1
    assert [warning["code"] for warning in report["warnings"]] == ["RA111"]
    source.write_text("import torch\nprint(torch.ones(3).sin().cos())\n")
    result = audit("verify", "a.audit")
    assert (result.code, result.stdout.split("\n")[0][:17]) == (4, "DIFFERENT PROGRAM")


def test_the_program_is_elsewhere(audit, recorded, verified, tmp_path: Path) -> None:
    recorded("a.audit")
    (tmp_path / "moved").mkdir()
    shutil.move("train.py", "moved/train.py")
    result = audit("verify", "a.audit")
    assert result.code == 2
    assert "which is not here" in result.stderr
    assert verified("a.audit", "moved/train.py")[0] == 0


BAD = [
    (["verify", "none.audit"], 4, "no trace at none.audit"),
    (["verify", "train.py"], 4, "train.py"),
    (["verify", "a.audit", "--same-start"], 4, "kept no tensor whole"),
    (["verify", "a.audit", "--own"], 4, "kept no tensor whole"),
    (["verify", "a.audit", "--ulp-tol", "1", "--rounding"], 2, "two tolerances"),
    (["verify", "a.audit", "--ulp-tol", "-1"], 2, "--ulp-tol"),
    (["verify", "a.audit", "--timeout", "inf"], 2, "no number of seconds"),
    (["verify", "a.audit", "--device", "cpu,cuda"], 2, "name one"),
    (["verify", "a.audit", "no.py"], 2, "no.py is not here; name the program's file, where train"),
    (["verify", "a.audit", "."], 2, ". is a directory; name the program's file"),
    (["verify", "a.audit", "--", "--lr", "3"], 2, "-o FILE -- --lr 3`"),
    (["record", "train.py", "-o", "b.audit", "--budget", "1M"], 2, "--capture full keeps"),
    (["verify", "a.audit", "--device", "abacus"], 2, "'abacus' is no device"),
    (["record", "train.py", "-o", "b.audit", "--weights-from", "a.audit"], 4, "--capture full"),
    (["record", "train.py", "-o", "b.audit", "--draws-from", "none"], 4, "no trace at none"),
    (["record", "train.py", "-o", "b.audit", "--budget", "many"], 2, "'many' is no size"),
    (["record", "train.py", "-o", "a.audit"], 2, "--force"),
]


def test_bad_input(audit, recorded, tmp_path: Path) -> None:
    recorded("a.audit")
    before = (tmp_path / "a.audit").read_bytes()
    for words, code, says in BAD:
        result = audit(*words)
        assert (result.code, result.stdout) == (code, ""), words
        assert says in result.stderr
        assert result.stderr.count("repro-audit: error:") == 1
        assert (tmp_path / "a.audit").read_bytes() == before
        assert not (tmp_path / "b.audit").exists()


def test_of_a_loop_that_a_program_recorded_itself(audit, plainly, program) -> None:
    program(
        "own.py",
        """
        import torch, repro_audit
        net = torch.nn.Linear(3, 3)
        with repro_audit.record("a.audit", model=net, capture="full") as recording:
            net(torch.ones(2, 3)).sum().backward()
            recording.step()
        """,
    )
    assert plainly("own.py").code == 0
    result = audit("verify", "a.audit")
    assert result.code == 4
    assert "repro_audit.record() within a program" in result.stderr


def test_damage_is_told(audit, recorded, tmp_path: Path) -> None:
    recorded("a.audit", "--capture", "full")
    path = tmp_path / "a.audit"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    result = audit("verify", "a.audit")
    assert result.code == 4
    assert "damaged" in result.stderr or "cannot be read" in result.stderr


def test_on_another_device_than_the_recorded_one(audit, recorded, verified) -> None:
    recorded("a.audit")
    code, report = verified("a.audit", "--device", "cpu")
    assert (code, report["verdict"]) == (0, "identical")
    assert [run["manifest"]["asked"]["device"] for run in report["runs"]] == [None, "cpu"]


def test_a_recording_says_what_it_kept(recorded, tmp_path: Path) -> None:
    sizes = {}
    for capture in ("none", "sample", "full"):
        recorded(f"{capture}.audit", "--capture", capture)
        with closing(sqlite3.connect(tmp_path / f"{capture}.audit")) as connection:
            sizes[capture] = [
                connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("sample", "payload")
            ]
    assert sizes["none"] == [0, 0]
    assert sizes["sample"][0] > 100
    assert sizes["sample"][1] == 0
    assert sizes["full"][1] == sizes["full"][0] == sizes["sample"][0]
    recorded("little.audit", "--capture", "full", "--budget", "20K")
    with closing(sqlite3.connect(tmp_path / "little.audit")) as connection:
        kept = "SELECT sum(length(data)), count(*) FROM payload"
        total, count = connection.execute(kept).fetchone()
    assert 0 < total <= 20 * 1024
    assert 0 < count < sizes["full"][1]


def test_another_source_or_other_arguments_are_the_cause(
    audit, recorded, verified, tmp_path: Path
) -> None:
    recorded("a.audit")
    recorded("b.audit", "--", "0.2")
    found = json.loads(audit("compare", "a.audit", "b.audit", "--format", "json").stdout)
    assert found["cause"]["class"] == "config-difference"
    assert "the program's arguments are none and 0.2" in found["cause"]["evidence"][0]
    source = tmp_path / "train.py"
    source.write_text(source.read_text().replace("functional.gelu", "functional.relu"))
    code, found = verified("a.audit")
    assert code == 1
    assert found["cause"]["class"] == "config-difference"
    assert "the program's source differs" in found["cause"]["evidence"][0]

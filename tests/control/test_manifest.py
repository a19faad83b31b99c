"""The manifest: complete, stable, JSON, and without effect on what it describes."""

import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from repro_audit.control.environment import KNOBS
from repro_audit.control.manifest import collect
from repro_audit.model import Plan, Target

ENGINE = {"engine": "portable"}


def plan(path: str = "train.py", **changes: Any) -> Plan:
    target = Target("script", path, args=("--lr", "0.1"))
    return Plan(run="run-1", target=target, trace="t", progress="p", **changes)


def test_says_what_was_asked_and_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (tmp_path / "train.py").write_bytes(b"import torch\n")
    found = collect(plan(seed=3), ENGINE)
    assert found["run"] == "run-1"
    assert found["asked"]["seed"] == 3
    assert found["asked"]["mode"] == "controlled"
    assert found["target"]["sha256"] == hashlib.sha256(b"import torch\n").hexdigest()
    assert found["target"]["arguments"] == ["--lr", "0.1"]
    assert found["versions"]["torch"] == torch.__version__
    assert found["environment"].keys() == set(KNOBS)
    assert found["environment"]["OMP_NUM_THREADS"] == "2"
    assert found["environment"]["MKL_CBWR"] is None
    assert found["torch"]["get_num_threads"] == torch.get_num_threads()
    assert found["directory"] == str(tmp_path)
    assert found["commit"] is None
    assert found["engine"] == ENGINE


def test_is_json_sorted_and_the_same_again() -> None:
    first, second = collect(plan(), ENGINE), collect(plan(), ENGINE)
    assert json.loads(json.dumps(first)) == first
    assert json.dumps(first) == json.dumps(second) == json.dumps(first, sort_keys=True)


def test_as_is_has_no_seed() -> None:
    assert collect(plan(mode="as-is"), ENGINE)["asked"]["seed"] is None


def test_a_target_that_is_gone_has_no_digest(tmp_path: Path) -> None:
    assert collect(plan(str(tmp_path / "gone.py")), ENGINE)["target"]["sha256"] is None


def test_names_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"):
        monkeypatch.setenv(name, "someone")
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "someone@example.org")
    git("init", "--quiet")
    assert collect(plan(), ENGINE)["commit"] is None
    git("commit", "--quiet", "--allow-empty", "-m", "first")
    assert collect(plan(), ENGINE)["commit"] == git("rev-parse", "HEAD")


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_does_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert collect(plan(), ENGINE)["commit"] is None


def test_without_torch_its_fields_are_null_and_it_stays_unimported() -> None:
    code = """
        import json, sys
        from repro_audit.control.manifest import collect
        from repro_audit.model import Plan, Target
        plan = Plan(run="r", target=Target("script", "x.py"), trace="t", progress="p")
        found = collect(plan, {})
        assert "torch" not in sys.modules and "numpy" not in sys.modules
        print(json.dumps([found["torch"], found["versions"]["torch"]]))
        """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert json.loads(done.stdout) == [None, None]


def test_reading_settings_changes_none_and_initialises_no_device() -> None:
    # In a process of its own: what other tests compile may leave settings that contradict.
    code = """
        import torch
        from repro_audit.control.settings import torch_settings
        state, initialised = torch.get_rng_state(), torch.cuda.is_initialized()
        first = torch_settings(torch)
        assert torch_settings(torch) == first
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.cuda.is_initialized() == initialised
        assert (first["cuda.devices"] is not None) == initialised
        assert first["get_default_dtype"] == "torch.float32"
        assert not [name for name, value in first.items() if str(value).startswith("unreadable")]
        """
    subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], timeout=60, check=True
    )


def test_settings_that_contradict_are_recorded_as_unreadable() -> None:
    code = """
        import torch
        from repro_audit.control.settings import torch_settings
        torch.backends.fp32_precision = "ieee"
        # Not every version contradicts itself there.
        try:
            expected = str(torch.backends.cudnn.allow_tf32)
        except RuntimeError:
            expected = "unreadable: "
        found = str(torch_settings(torch)["backends.cudnn.allow_tf32"])
        print(found.startswith(expected), expected)
        """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("True ")

"""Each run's own copy of the working directory, and its own caches."""

import os
import tempfile
from pathlib import Path

import pytest

from repro_audit.errors import UsageError
from repro_audit.replicate.isolate import Turns, Workspace, workspace


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, with the directory for temporary files beside it."""
    folder = tmp_path / "project"
    (folder / "package").mkdir(parents=True)
    (folder / "train.py").write_text("print(1)")
    (folder / "package" / "data.txt").write_text("data")
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.chdir(folder)
    return folder


def listed(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_disabled_changes_nothing(source: Path) -> None:
    with workspace(enabled=False) as place:
        assert place == Workspace(None, None)


def test_copies_what_is_there_and_removes_it(source: Path, tmp_path: Path) -> None:
    os.utime(source / "train.py", (1e9, 1e9))
    with workspace() as place:
        assert place.cwd is not None
        assert listed(place.cwd) == {"train.py", "package", "package/data.txt"}
        assert (place.cwd / "train.py").stat().st_mtime == 1e9
        (place.cwd / "train.py").write_text("changed")
        (place.cwd / "package" / "data.txt").unlink()
    assert (source / "train.py").read_text() == "print(1)"
    assert (source / "package" / "data.txt").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_runs_one_after_the_other_have_one_path(source: Path) -> None:
    paths = []
    for _ in range(2):
        with workspace() as place:
            paths.append((place.cwd, place.environment))
    assert paths[0] == paths[1]
    with workspace() as first, workspace() as second:
        assert first.cwd != second.cwd
        assert len(str(first.cwd)) == len(str(second.cwd))


def test_leaves_out_audits_version_control_and_environments(source: Path) -> None:
    for name in (".repro-audit", ".git", ".venv-3.11", "package/__pycache__"):
        (source / name).mkdir()
        (source / name / "x").touch()
    (source / "env").mkdir()
    (source / "env" / "pyvenv.cfg").touch()
    (source / ".env").touch()
    (source / "run.audit").touch()
    os.mkfifo(source / "pipe")
    with workspace() as place:
        assert place.cwd is not None
        assert listed(place.cwd) == {"train.py", "package", "package/data.txt", ".env"}


def test_links_lead_into_the_copy_or_to_what_they_led_to(source: Path, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "big").write_text("big")
    (source / "inner").symlink_to("package/data.txt")
    (source / "package" / "up").symlink_to("../train.py")
    (source / "absolute").symlink_to(source / "package")
    (source / "outer").symlink_to("../shared")
    (source / "package" / "far").symlink_to("../../shared/big")
    (source / "dangling").symlink_to("nowhere")
    with workspace() as place:
        copy = place.cwd
        assert copy is not None
        for name in ("inner", "package/up", "absolute"):
            assert (copy / name).is_symlink()
            assert (copy / name).resolve().is_relative_to(copy.resolve())
            assert (copy / name).exists()
        assert (copy / "outer").resolve() == (tmp_path / "shared").resolve()
        assert (copy / "package" / "far").read_text() == "big"
        assert (copy / "dangling").readlink() == Path("nowhere")
    assert (tmp_path / "shared" / "big").exists()


def test_caches_are_empty_and_downloads_are_shared(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/cache")
    monkeypatch.setenv("TORCH_HOME", "/models")
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv("PYTHONPATH", f"{source}/package:/else:rel:{source}")
    with workspace() as place:
        found, copy = place.environment, place.cwd
        assert found is not None
        assert copy is not None
        for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "XDG_CACHE_HOME", "TMPDIR"):
            folder = Path(found[name])
            assert list(folder.iterdir()) == []
            assert folder.parent == copy.parent
        assert found["HF_HOME"] == "/home/me/cache/huggingface"
        assert found["TORCH_HOME"] == "/models"
        assert found["PWD"] == str(copy)
        assert found["PYTHONPATH"] == f"{copy}/package:/else:rel:{copy}"
        assert found["PATH"] == os.environ["PATH"]
    assert os.environ["XDG_CACHE_HOME"] == "/home/me/cache"


def test_refuses_what_is_too_large(source: Path, tmp_path: Path) -> None:
    with (source / "weights").open("wb") as file:
        file.truncate(3 << 30)
    with (
        pytest.raises(UsageError, match=r"more than the 2\.0 GiB .* by a symbolic link"),
        workspace(limit=2 << 30),
    ):
        pass
    assert list((tmp_path / "tmp").iterdir()) == []


def test_removes_what_a_program_made_read_only(source: Path, tmp_path: Path) -> None:
    with workspace() as place:
        assert place.cwd is not None
        (place.cwd / "package").chmod(0o500)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_is_removed_when_the_run_fails(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), workspace():
        raise ZeroDivisionError
    assert list((tmp_path / "tmp").iterdir()) == []


def test_runs_in_turn_go_on_where_one_left_off(source: Path, tmp_path: Path) -> None:
    with Turns() as turns:
        place = turns.fresh()
        assert place.cwd == turns.directory
        (turns.directory / "straight.pt").write_text("1")
        assert turns.fresh() == place
        assert listed(turns.directory) == {"train.py", "package", "package/data.txt"}
        (turns.directory / "last.pt").write_text("first")
        (turns.directory / "link").symlink_to("last.pt")
        os.utime(turns.directory / "last.pt", (1e9, 1e9))
        turns.keep()
        assert turns.left() == place
        (turns.directory / "last.pt").write_text("resumed")
        (turns.directory / "more.pt").write_text("2")
        assert turns.again() == place
        assert "more.pt" not in listed(turns.directory)
        assert (turns.directory / "link").read_text() == "first"
        assert (turns.directory / "last.pt").stat().st_mtime == 1e9
        assert turns.again() == place
    assert list((tmp_path / "tmp").iterdir()) == []
    assert listed(source) == {"train.py", "package", "package/data.txt"}


def test_a_program_may_leave_directories_that_cannot_be_written(
    source: Path, tmp_path: Path
) -> None:
    with Turns() as turns:
        turns.fresh()
        (turns.directory / "package").chmod(0o500)
        turns.keep()
        turns.again()
        turns.fresh()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_is_too_large_is_refused_with_a_way_out(source: Path, tmp_path: Path) -> None:
    with Turns(limit=3) as turns, pytest.raises(UsageError, match="by a symbolic link"):
        turns.fresh()
    assert list((tmp_path / "tmp").iterdir()) == []

"""Listings backwards, with everything else about them as it was."""

import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro_audit.control.perturb import reverse_listings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abcdef":
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    return tmp_path


@pytest.fixture
def before(folder: Path) -> list[str]:
    return os.listdir(folder)


@pytest.fixture
def backwards(before: list[str]) -> Iterator[list[str]]:
    restore = reverse_listings()
    yield before[::-1]
    restore()


def test_every_way_to_list_is_reversed(folder: Path, backwards: list[str]) -> None:
    assert os.listdir(folder) == backwards
    assert [entry.name for entry in os.scandir(folder)] == backwards
    assert [path.name for path in folder.iterdir()] == backwards
    assert [Path(path).name for path in glob.glob(f"{folder}/*")] == backwards
    (_, folders, files), *_ = os.walk(folder)
    assert folders == ["sub"]
    assert files == [name for name in backwards if name != "sub"]


def test_arguments_of_every_kind_are_taken(
    folder: Path, backwards: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert os.listdir() == os.listdir(None) == os.listdir(path=str(folder)) == backwards
    assert os.listdir(os.fsencode(folder)) == [os.fsencode(name) for name in backwards]
    descriptor = os.open(folder, os.O_RDONLY)
    assert os.listdir(descriptor) == backwards
    assert [entry.name for entry in os.scandir(descriptor)] == backwards
    os.close(descriptor)
    assert os.listdir in os.supports_fd
    assert os.scandir in os.supports_fd


@pytest.mark.usefixtures("backwards")
def test_scandir_is_a_context_and_an_iterator(folder: Path) -> None:
    with os.scandir(folder) as entries:
        first = next(entries)
        assert isinstance(first, os.DirEntry)
        assert iter(entries) is entries
    assert list(entries) == []


@pytest.mark.usefixtures("backwards")
def test_errors_are_those_of_the_originals(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        os.scandir(folder / "none")
    with pytest.raises(NotADirectoryError):
        os.listdir(folder / "a")


@pytest.mark.usefixtures("backwards")
def test_trees_can_be_copied_and_removed(folder: Path) -> None:
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy)
    shutil.rmtree(copy)
    assert not copy.exists()


def test_restored_is_as_before(folder: Path, before: list[str]) -> None:
    listdir, scandir = os.listdir, os.scandir
    reverse_listings()()
    assert (os.listdir, os.scandir) == (listdir, scandir)
    assert os.listdir(folder) == before

"""A place of its own for each run: a copy of the working directory, and empty caches."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from repro_audit.errors import UsageError

LIMIT: Final = 4 << 30
_LEFT_OUT = (
    ".repro-audit",
    "*.audit",
    ".git",
    ".hg",
    ".venv*",
    "venv",
    "__pycache__",
    "node_modules",
)
# Where compilers and their like keep what an earlier run could hand to a later one.
_CACHES = {
    "CUDA_CACHE_PATH": "nv",
    "CUPY_CACHE_DIR": "cupy",
    "NUMBA_CACHE_DIR": "numba",
    "TMPDIR": "tmp",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "extensions",
    "TRITON_CACHE_DIR": "triton",
    "XDG_CACHE_HOME": "cache",
}
# Downloads, which are what they are whoever fetched them: kept where they would be, by default
# below XDG_CACHE_HOME.
_DOWNLOADS = {"HF_HOME": "huggingface", "TORCH_HOME": "torch"}


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where a run runs, and its environment; None: where and as we do."""

    cwd: Path | None = None
    environment: dict[str, str] | None = None


@contextlib.contextmanager
def workspace(*, enabled: bool = True, limit: int = LIMIT) -> Iterator[Workspace]:
    """Give a run its own copy of the working directory, removed afterwards.

    Audits, version control, virtual environments and `__pycache__` are left out. Symbolic links
    stay links: into the copy where they pointed into the directory, else to what they pointed to,
    which is then shared. Modification times are kept. Caches and the directory for temporary files
    begin empty, and `PYTHONPATH` entries below the directory lead into the copy. Of one process,
    workspaces that do not overlap in time have the same path. Raises UsageError where there is
    more than `limit` bytes to copy, or no room for it.
    """
    if not enabled:
        yield Workspace()
        return
    source = Path.cwd()
    files = _checked(source, limit)
    folder = _make_folder()
    try:
        yield _filled(source, files, folder)
    finally:
        _remove(folder)


class Turns:
    """One place where runs run in turn: each in a copy of its own, or where another left off.

    A context: at its end the place is removed. Copies are made, and errors raised, as `workspace`
    does.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._source = Path.cwd()
        self._limit = limit

    def __enter__(self) -> Turns:
        self._folder = _make_folder()
        self._kept = self._folder.with_name(f"{self._folder.name}-kept")
        return self

    def __exit__(self, *exception: object) -> None:
        for folder in (self._folder, self._kept):
            if folder.exists():
                _remove(folder)

    @property
    def place(self) -> Path:
        """What holds that directory, and the caches that go with it."""
        return self._folder

    @property
    def directory(self) -> Path:
        """Where runs run."""
        return self._folder / "work"

    def fresh(self) -> Workspace:
        """A copy of the working directory, and empty caches."""
        self._clear()
        return _filled(self._source, _checked(self._source, self._limit), self._folder)

    def keep(self) -> None:
        """Keep what the last run left, for `again`. Raises UsageError where there is no room."""
        self._copy_all(self._folder, self._kept)

    def again(self) -> Workspace:
        """What was kept."""
        self._clear()
        self._folder.rmdir()
        self._copy_all(self._kept, self._folder)
        return self.left()

    def left(self) -> Workspace:
        """What the last run left."""
        return Workspace(self.directory, _environment(self._source, self._folder, self.directory))

    def _clear(self) -> None:
        _remove(self._folder)
        self._folder.mkdir(mode=0o700)

    def _copy_all(self, source: Path, copy: Path) -> None:
        try:
            shutil.copytree(source, copy, symlinks=True, ignore=_neither)
        except (OSError, shutil.Error) as error:
            raise UsageError(
                f"what the program left cannot be copied to {copy}: {error}. "
                "Make room there, or set TMPDIR to where there is some."
            ) from error


def _neither(folder: str, names: list[str]) -> list[str]:
    """What is neither file, directory nor link: a socket, a pipe."""
    paths = {name: Path(folder, name) for name in names}
    kept = (Path.is_symlink, Path.is_file, Path.is_dir)
    return [name for name, path in paths.items() if not any(kind(path) for kind in kept)]


def _filled(source: Path, files: list[os.DirEntry[str]], folder: Path) -> Workspace:
    copy = folder / "work"
    try:
        _copy(source, files, copy)
    except OSError as error:
        raise UsageError(
            f"{source} cannot be copied: {error}. Mend that, or leave --isolate out where it "
            "was given."
        ) from error
    return Workspace(copy, _environment(source, folder, copy))


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All entries below `folder` that are to be copied, a directory before what is in it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if any(fnmatch.fnmatch(entry.name, pattern) for pattern in _LEFT_OUT):
                continue
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder and Path(entry.path, "pyvenv.cfg").exists():
                continue
            if is_folder or entry.is_symlink() or entry.is_file():
                yield entry
            if is_folder:
                yield from _files(Path(entry.path))


def _checked(source: Path, limit: int) -> list[os.DirEntry[str]]:
    """The entries to copy, once it is known that they may and can be."""
    files, size = [], 0
    for entry in _files(source):
        files.append(entry)
        size += entry.stat(follow_symlinks=False).st_size
        if size > limit:
            raise UsageError(
                f"{source} holds more than the {limit / 2**30:.1f} GiB that are copied for "
                "each run. Start from the program's own directory, and let it reach its data by a "
                "symbolic link."
            )
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free
    if size > free:
        raise UsageError(
            f"{place} has {free / 2**30:.1f} GiB left for a copy of {source}, which holds "
            f"{size / 2**30:.1f} GiB. Set TMPDIR to where there is room."
        )
    return files


def _make_folder() -> Path:
    # The same name for every run: paths, too, get into hashes and so into orders.
    for number in range(100):
        folder = Path(tempfile.gettempdir(), f"repro-audit-{os.getpid()}-{number:02d}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"cannot make {folder}: {error.strerror}. Set TMPDIR elsewhere."
            ) from error
        return folder
    raise UsageError(f"no name is free but for {folder}. Remove those that are left over.")


def _copy(source: Path, files: list[os.DirEntry[str]], copy: Path) -> None:
    copy.mkdir()
    folders = [(str(source), copy)]
    for entry in files:
        goal = copy / Path(entry.path).relative_to(source)
        if entry.is_symlink():
            goal.symlink_to(_link(source, Path(entry.path)))
        elif entry.is_dir():
            goal.mkdir()
            folders.append((entry.path, goal))
        else:
            shutil.copy2(entry.path, goal)
    for original, goal in reversed(folders):
        shutil.copystat(original, goal)


def _link(source: Path, link: Path) -> str:
    """What a link's copy is to point to."""
    text = os.readlink(link)  # noqa: PTH115 - Path.readlink() would tidy the text
    leads_to = Path(os.path.normpath(link.parent / text))
    if not leads_to.is_relative_to(source):
        return str(leads_to)
    return text if not Path(text).is_absolute() else os.path.relpath(leads_to, link.parent)


def _environment(source: Path, folder: Path, copy: Path) -> dict[str, str]:
    environment = dict(os.environ)
    shared = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    for variable, name in _DOWNLOADS.items():
        environment.setdefault(variable, str(Path(shared, name)))
    for variable, name in _CACHES.items():
        (folder / name).mkdir(exist_ok=True)
        environment[variable] = str(folder / name)
    environment["PWD"] = str(copy)
    environment.update(_python_path(environment, source, copy))
    return environment


def _python_path(environment: Mapping[str, str], source: Path, copy: Path) -> dict[str, str]:
    if "PYTHONPATH" not in environment:
        return {}
    entries = environment["PYTHONPATH"].split(os.pathsep)
    moved = [
        str(copy / Path(entry).relative_to(source))
        if entry and Path(entry).is_relative_to(source)
        else entry
        for entry in entries
    ]
    return {"PYTHONPATH": os.pathsep.join(moved)}


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except PermissionError:
        # The program, or the original, may have directories that cannot be written.
        for directory, _, _ in os.walk(folder):
            Path(directory).chmod(stat.S_IRWXU)
        shutil.rmtree(folder)

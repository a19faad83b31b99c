"""Call sites: the innermost line that is not torch's, the standard library's or ours, and, where an
installed package has it, the line of the program that called the package.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

_SITES = ("site-packages", "dist-packages")
_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
# What is typed at a prompt of Python's or IPython's is the program's own.
_TYPED = ("<ipython-input-", "<python-input-", "<stdin>")
# The one file of the package that is a program.
_WORKLOAD = f"{_PACKAGE}workload.py"

# Whose frame lies between the line that asks for a backward and all that autograd then calls.
_ENGINE = torch.autograd.graph._engine_run_backward.__code__


class Locator:
    """Turns frames into numbers of call sites, through `register` (the trace's interning).

    `register` is given the line and, where that is an installed package's, the program's own.
    Paths below one of `bases` are written relative to it, those of installed packages relative to
    their site directory, so that traces from two checkouts compare. Files are classified once each;
    a look-up costs one dictionary access a frame, as far out as the program's own.
    """

    def __init__(self, bases: tuple[str, ...], register: Callable[[str, str | None], int]) -> None:
        # With an empty part, join leaves the separator that a prefix needs.
        self._bases = tuple(os.path.join(os.path.realpath(base), "") for base in bases)  # noqa: PTH118
        self._register = register
        paths = sysconfig.get_paths()
        # An environment may see the packages of others: of its base, of the user.
        sites = {paths[k] for k in ("purelib", "platlib")}
        sites |= {at for at in sys.path if at.rstrip(os.sep).endswith(_SITES)}
        self._sites = tuple({os.path.join(os.path.realpath(site), "") for site in sites})  # noqa: PTH118
        self._torch = os.path.join(os.path.realpath(os.path.dirname(torch.__file__)), "")  # noqa: PTH118, PTH120
        self._library = tuple(
            os.path.join(os.path.realpath(paths[k]), "")  # noqa: PTH118
            for k in ("stdlib", "platstdlib")
        )
        # Of each file the name to show, None of a library's, and if it is the program's own.
        self._files: dict[str, tuple[str | None, bool]] = {}
        self._numbers: dict[tuple[str | int, ...], int] = {}

    def forget(self, register: Callable[[str, str | None], int]) -> None:
        """Number anew, through another `register`."""
        self._register = register
        self._numbers.clear()

    def number(self, frame: FrameType | None) -> int | None:
        """Number of the innermost frame outside the libraries, from `frame` outwards."""
        files = self._files
        while frame is not None:
            filename = frame.f_code.co_filename
            try:
                name, own = files[filename]
            except KeyError:
                name, own = self._file(filename)
            if name is not None:
                caller = None if own else self._program(frame)
                key: tuple[str | int, ...] = (filename, frame.f_lineno)
                if caller is not None:
                    key = (*key, caller.f_code.co_filename, caller.f_lineno)
                try:
                    return self._numbers[key]
                except KeyError:
                    called_from = None if caller is None else self._line(caller)
                    number = self._numbers[key] = self._register(self._line(frame), called_from)
                    return number
            frame = frame.f_back
        return None

    def line(self, frame: FrameType | None) -> str | None:
        """The line that `number` numbers, and the program's that called it: `train.py:12`."""
        while frame is not None:
            name, own = self._file(frame.f_code.co_filename)
            if name is not None:
                caller = None if own else self._program(frame)
                called_from = "" if caller is None else f" from {self._line(caller)}"
                return f"{self._line(frame)}{called_from}"
            frame = frame.f_back
        return None

    def in_backward_code(self, frame: FrameType | None) -> bool:
        """True if the line that `number` numbers runs within a backward, False if it called it."""
        while frame is not None and frame.f_code is not _ENGINE:
            if self._file(frame.f_code.co_filename)[0] is not None:
                return True
            frame = frame.f_back
        return False

    def direct(self, frame: FrameType | None, *through: str) -> int | None:
        """Number of `frame`, or of the first not of the files `through`; None if a library's."""
        while frame is not None and frame.f_code.co_filename in through:
            frame = frame.f_back
        if frame is None or self._file(frame.f_code.co_filename)[0] is None:
            return None
        return self.number(frame)

    def importing(self, frame: FrameType | None) -> bool:
        """True if `frame` runs because an installed package is imported."""
        others = (self._torch, *self._sites, *self._library)
        while frame is not None:
            filename = frame.f_code.co_filename
            if filename.startswith("<frozen importlib"):
                return True
            installed = os.path.realpath(filename).startswith(others)
            if not installed and not filename.startswith("<"):
                return False
            frame = frame.f_back
        return False

    def _line(self, frame: FrameType) -> str:
        return f"{self._file(frame.f_code.co_filename)[0]}:{frame.f_lineno}"

    def _program(self, frame: FrameType) -> FrameType | None:
        """The innermost frame around `frame` that is the program's own."""
        files = self._files
        caller = frame.f_back
        while caller is not None:
            filename = caller.f_code.co_filename
            try:
                own = files[filename][1]
            except KeyError:
                own = self._file(filename)[1]
            if own:
                return caller
            caller = caller.f_back
        return None

    def _file(self, filename: str) -> tuple[str | None, bool]:
        """The name to show for a file, None where it is a library's; True for the program's own."""
        known = self._files.get(filename)
        if known is None:
            known = self._files[filename] = self._classified(filename)
        return known

    def _classified(self, filename: str) -> tuple[str | None, bool]:
        if filename.startswith(_TYPED):
            return filename, True
        if filename.startswith("<"):
            return None, False
        real = os.path.realpath(filename)
        # torch sets it where nobody else has, once it compiles.
        generated = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        if generated and real.startswith(os.path.join(os.path.realpath(generated), "")):  # noqa: PTH118
            return None, False
        if real.startswith(_PACKAGE) and real != _WORKLOAD:
            return None, False
        # Of an environment the site directory lies within that of the standard library.
        if real.startswith(self._torch):
            return None, False
        for site in self._sites:
            if real.startswith(site):
                return real[len(site) :], False
        library = max((len(at) for at in self._library if real.startswith(at)), default=0)
        for base in self._bases:
            # An interpreter may lie below a program's directory.
            if real.startswith(base) and len(base) > library:
                return real[len(base) :], True
        return (None, False) if library else (real, True)

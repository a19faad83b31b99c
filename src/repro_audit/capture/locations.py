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
# The one file of the package that is a program.
_WORKLOAD = f"{_PACKAGE}workload.py"


class Locator:
    """Turns frames into numbers of call sites, through `register` (the trace's interning).

    `register` is given the line and, where that is an installed package's, the program's own.
    Paths below one of `bases` are written relative to it, those of installed packages relative to
    their site directory, so that traces from two checkouts compare. Files are classified once each;
    a look-up costs one dictionary access a frame.
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
        self._shown: dict[str, str | None] = {}
        # Those shown that are installed packages', and those that are the program's.
        self._installed: set[str] = set()
        self._own: set[str] = set()
        self._numbers: dict[tuple[str, int, str | None, int], int] = {}

    def forget(self, register: Callable[[str, str | None], int]) -> None:
        """Number anew, through another `register`."""
        self._register = register
        self._numbers.clear()

    def number(self, frame: FrameType | None) -> int | None:
        """Number of the innermost frame outside the libraries, from `frame` outwards."""
        shown = self._shown
        while frame is not None:
            filename = frame.f_code.co_filename
            try:
                name = shown[filename]
            except KeyError:
                name = shown[filename] = self._show(filename)
            if name is not None:
                caller = self._program(frame) if filename in self._installed else None
                own, line = (
                    (None, 0) if caller is None else (caller.f_code.co_filename, caller.f_lineno)
                )
                key = (filename, frame.f_lineno, own, line)
                try:
                    return self._numbers[key]
                except KeyError:
                    called_from = None if own is None else f"{shown[own]}:{line}"
                    location = f"{name}:{frame.f_lineno}"
                    number = self._numbers[key] = self._register(location, called_from)
                    return number
            frame = frame.f_back
        return None

    def _program(self, frame: FrameType) -> FrameType | None:
        """The innermost frame from `frame` outwards that is the program's own."""
        shown, own = self._shown, self._own
        caller: FrameType | None = frame
        while caller is not None:
            filename = caller.f_code.co_filename
            if filename in own:
                return caller
            if filename in shown:
                caller = caller.f_back
            else:
                shown[filename] = self._show(filename)
        return None

    def line(self, frame: FrameType | None) -> str | None:
        """The line that `number` numbers: `train.py:12`."""
        while frame is not None:
            name = self._show(frame.f_code.co_filename)
            if name is not None:
                return f"{name}:{frame.f_lineno}"
            frame = frame.f_back
        return None

    def direct(self, frame: FrameType | None, *through: str) -> int | None:
        """Number of `frame`, or of the first not of the files `through`; None if a library's."""
        while frame is not None and frame.f_code.co_filename in through:
            frame = frame.f_back
        if frame is None or self._show(frame.f_code.co_filename) is None:
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

    def _show(self, filename: str) -> str | None:
        """The name to show for a file, or None where it belongs to a library."""
        if filename.startswith("<"):
            return None
        real = os.path.realpath(filename)
        # torch sets it where nobody else has, once it compiles.
        generated = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
        if generated and real.startswith(os.path.join(os.path.realpath(generated), "")):  # noqa: PTH118
            return None
        if real.startswith(_PACKAGE) and real != _WORKLOAD:
            return None
        if not real.startswith(self._sites):
            for base in self._bases:
                if real.startswith(base):
                    self._own.add(filename)
                    return real[len(base) :]
        # Of an environment the site directory lies within that of the standard library.
        if real.startswith(self._torch):
            return None
        for site in self._sites:
            if real.startswith(site):
                self._installed.add(filename)
                return real[len(site) :]
        if real.startswith(self._library):
            return None
        self._own.add(filename)
        return real

"""What a confirming run changes that a program must not depend on: the order of listings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any


def reverse_listings() -> Callable[[], None]:
    """Make `os.listdir` and `os.scandir` list backwards, and so `glob`, `Path.iterdir`, `os.walk`.

    Both promise an arbitrary order. Lasts for the process, unless what is returned is called.
    """
    listdir, scandir = os.listdir, os.scandir

    @functools.wraps(listdir)
    def reversed_listdir(*args: Any, **kwargs: Any) -> list[Any]:
        return listdir(*args, **kwargs)[::-1]

    @functools.wraps(scandir)
    def reversed_scandir(*args: Any, **kwargs: Any) -> _Reversed:
        with scandir(*args, **kwargs) as entries:
            return _Reversed(list(entries)[::-1])

    os.listdir = reversed_listdir
    os.scandir = reversed_scandir  # type: ignore[assignment]
    # shutil chooses its algorithms by asking whether the very functions are in this set.
    os.supports_fd.update((reversed_listdir, reversed_scandir))

    def restore() -> None:
        os.listdir, os.scandir = listdir, scandir
        os.supports_fd.difference_update((reversed_listdir, reversed_scandir))

    return restore


class _Reversed:
    """A directory's entries, as `os.scandir` gives them: an iterator and a context."""

    def __init__(self, entries: list[os.DirEntry[Any]]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[os.DirEntry[Any]]:
        return self

    def __next__(self) -> os.DirEntry[Any]:
        return next(self._entries)

    def __enter__(self) -> _Reversed:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is open: the entries were read at once."""
        self._entries = iter(())

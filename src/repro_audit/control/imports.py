"""Calls back when the program itself has imported a module, without importing it earlier."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

from repro_audit.errors import EXIT_INTERNAL, ReproAuditError

Callback = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class _Watch:
    callback: Callback
    process: int
    in_forks: bool


_lock = threading.Lock()
_waiting: dict[str, list[_Watch]] = {}


def when_imported(name: str, callback: Callback, *, in_forks: bool = False) -> None:
    """Call `callback(module)` once: now if module `name` is imported, else when it will have been.

    The call comes right after the module's own code has run, inside the `import` statement (of
    any thread) that caused it, and in the order of registration. `name` may be a submodule
    (`numpy.random`); it must have a loader of its own, which built-in modules do not.

    A child process forked before the import is told only if `in_forks`. An exception in `callback`
    ends the process at once with its message: the program could catch anything else and go on
    without what the callback was to set up. Here, where the module is already imported, it is
    simply raised.
    """
    with _lock:
        module = sys.modules.get(name)
        if module is None or name in _waiting:
            if _FINDER not in sys.meta_path:
                sys.meta_path.insert(0, _FINDER)
            _waiting.setdefault(name, []).append(_Watch(callback, os.getpid(), in_forks))
            return
    if getattr(module.__spec__, "_initializing", False):
        # Another thread is in the middle of it: this waits for its import lock.
        module = importlib.import_module(name)
    callback(module)


def pending(name: str) -> bool:
    """True while `name` has not been imported since it was asked for."""
    with _lock:
        return name in _waiting


class _Finder(MetaPathFinder):
    """Finds a watched module as the other finders do, and observes its loader once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _waiting:
            return None
        for finder in list(sys.meta_path):
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(fullname, path, target)
            if spec is not None:
                _observe(spec.loader, fullname)
                return spec
        return None


_FINDER = _Finder()


def _observe(loader: Any, name: str) -> None:
    # A namespace package has no loader yet; a built-in module's is a class that all share.
    if loader is None or isinstance(loader, type):
        return
    original = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        # A zipimporter serves several modules; only the watched one ends the observation.
        if module.__name__ != name:
            original(module)
            return
        loader.__dict__.pop("exec_module", None)
        original(module)
        _fire(name, module)

    loader.exec_module = exec_module


def _fire(name: str, module: ModuleType) -> None:
    with _lock:
        watches = _waiting.pop(name, [])
    for watch in watches:
        if watch.process != os.getpid() and not watch.in_forks:
            continue
        try:
            watch.callback(module)
        except BaseException as error:
            _end_process(name, error)


def _end_process(name: str, error: BaseException) -> NoReturn:
    code = EXIT_INTERNAL
    sys.stdout.flush()
    print(f"repro-audit: what importing {name} was to start has failed:", file=sys.stderr)
    if isinstance(error, ReproAuditError):
        code = error.exit_code
        print(error, file=sys.stderr)
    else:
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(code)

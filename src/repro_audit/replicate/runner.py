"""Runs the audited program as the top process: as `python train.py` or `python -m pkg` would."""

from __future__ import annotations

import builtins
import dis
import importlib.util
import os
import sys
import traceback
import types
from importlib.machinery import SourceFileLoader
from pathlib import Path

from repro_audit.errors import ReproAuditError, UsageError
from repro_audit.model import Target

_OURS = str(Path(__file__).resolve().parent.parent) + os.sep
_CAPTURE = os.path.join(_OURS, "capture", "")  # noqa: PTH118
# How an operator is called from a dispatch mode, and a module's code from a loader that is watched.
_CALLED_BY_US = (os.path.join("torch", "_ops.py"), "<frozen importlib._bootstrap_external>")  # noqa: PTH118
# Our own __main__ is replaced by the program's; without a reference its globals would be cleared.
_kept: list[types.ModuleType] = []


def run_script(target: Target) -> None:
    """Execute a script as `__main__`: absolute `__file__`, its directory first on `sys.path`.

    Whatever the program raises comes out of here.
    """
    path = os.path.abspath(target.path)  # noqa: PTH100 - resolve() would follow a link
    sys.argv = [target.path, *target.args]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))  # noqa: PTH120
    main = _new_main(path)
    main.__loader__ = SourceFileLoader("__main__", path)
    source = Path(path).read_bytes()
    exec(compile(source, path, "exec", dont_inherit=True), main.__dict__)


def run_module(target: Target) -> None:
    """Execute `-m package.module` as `__main__`, with the spec that spawned children need."""
    sys.argv = ["-m", *target.args]
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())  # noqa: PTH109
    name = target.name
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        name = f"{name}.__main__"
        spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or spec.loader is None:
        raise UsageError(
            f"no module named {target.name} can be run: is its directory the current one?"
        )
    get_code = getattr(spec.loader, "get_code", None)
    code = get_code(name) if get_code is not None else None
    if code is None:
        raise UsageError(f"module {name} has no Python code to run")
    main = _new_main(spec.origin)
    main.__spec__ = spec
    main.__loader__ = spec.loader
    main.__package__ = spec.parent
    sys.argv[0] = spec.origin
    exec(code, main.__dict__)


def print_exception(error: BaseException) -> None:
    """Print an exception as Python would have, without the frames that are ours.

    A hook that the program installed as `sys.excepthook` is called instead, as Python would.
    """
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OURS):
        tb = tb.tb_next
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, tb)
        return
    printed = traceback.TracebackException(type(error), error, tb, compact=True)
    _leave_us_out(printed)
    print("".join(printed.format()), end="", file=sys.stderr)


def is_ours(error: BaseException) -> bool:
    """Whether capture itself raised it: then the program, unobserved, would have gone on.

    What is passed on is called with all that came (`*args`): what such a call raises is the
    program's, and so is what tells of the machine (no memory, a device's earlier fault) or of a
    stack that is full, wherever it is noticed.
    """
    told_late = isinstance(error, RuntimeError) and "CUDA error" in str(error)
    out_of_memory = type(error).__name__ == "OutOfMemoryError"
    if isinstance(error, ReproAuditError | MemoryError | RecursionError) or not isinstance(
        error, Exception
    ):
        return False
    last, captures = None, False
    tb = error.__traceback__
    while tb is not None:
        name = tb.tb_frame.f_code.co_filename
        captures = name.startswith(_OURS) and (captures or name.startswith(_CAPTURE))
        last, tb = tb, tb.tb_next
    if last is None or not captures or told_late or out_of_memory:
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] != dis.opmap["CALL_FUNCTION_EX"]


def _leave_us_out(printed: traceback.TracebackException | None) -> None:
    """Drop our frames, and those of torch and of importlib that are there for them alone."""
    if printed is None:
        return
    frames: list[traceback.FrameSummary] = []
    after_ours = False
    for frame in printed.stack:
        if frame.filename.startswith(_OURS):
            while frames and frames[-1].filename.startswith("<frozen importlib"):
                frames.pop()
            after_ours = True
        elif not (after_ours and frame.filename.endswith(_CALLED_BY_US)):
            frames.append(frame)
            after_ours = False
    printed.stack[:] = frames
    for inner in (printed.__cause__, printed.__context__, *(printed.exceptions or ())):
        _leave_us_out(inner)


def _new_main(path: str) -> types.ModuleType:
    main = types.ModuleType("__main__")
    main.__file__ = path
    main.__spec__ = None
    main.__dict__.update(__annotations__={}, __builtins__=builtins, __cached__=None)
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    return main

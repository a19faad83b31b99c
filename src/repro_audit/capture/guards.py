"""What keeps our own work out of the program's sight, and the program's compiler out of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from repro_audit import engine


@contextmanager
def paused() -> Iterator[None]:
    """A guard under which our own reading reaches no mode and no subclass of the program's."""
    with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
        if torch._C._functorch.peek_interpreter_stack() is None:
            yield
            return
        # Where a function is differentiated or vectorised, tensors that are made are wrapped too.
        with engine.unseen():
            yield


def unseen_by_dynamo(*functions: Any) -> None:
    """Keep Dynamo from compiling our functions, or what they call, where a program's code runs.

    Set once for the code, unlike `torch._dynamo.disable`, which costs microseconds a call.
    """
    frames = torch._C._dynamo.eval_frame
    skip = frames._FrameAction.SKIP
    for function in functions:
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))

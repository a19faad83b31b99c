"""Python processes that a program starts: what they compute is not observed, and that is said."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from repro_audit.control.imports import when_imported

# Programs that run a Python program in processes of their own.
_LAUNCHERS = ("python", "torchrun", "accelerate", "deepspeed")
# Their batches are events of the process that loads.
_LOADER_WORKERS = "torch.utils.data._utils.worker"


class Processes:
    """Counts the processes of `multiprocessing`, but for loader workers, and Python commands."""

    def __init__(self) -> None:
        self.started = 0

    def install(self) -> None:
        """Begin to count."""
        sys.addaudithook(self._heard)
        when_imported("multiprocessing.process", self._wrap)

    def _wrap(self, module: Any) -> None:
        start = module.BaseProcess.start

        @functools.wraps(start)
        def counted(process: Any) -> None:
            if getattr(process._target, "__module__", None) != _LOADER_WORKERS:
                self.started += 1
            start(process)

        module.BaseProcess.start = counted

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "subprocess.Popen":
            return
        executable, words = args[0], args[1]
        first = executable or (words if isinstance(words, str | bytes) else words[0])
        name = os.path.basename(os.fsdecode(first))  # noqa: PTH119 - an audit hook must stay light
        self.started += name.startswith(_LAUNCHERS)

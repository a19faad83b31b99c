"""What recorders do in a fork of their process."""

from __future__ import annotations

import functools
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repro_audit.capture.recorder import Recorder

# In the order in which they began, which a set of them would not keep.
_recorders: weakref.WeakKeyDictionary[Recorder, None] = weakref.WeakKeyDictionary()


def tell_of_forks(recorder: Recorder) -> None:
    """Call `recorder.on_fork` in each fork of this process, for as long as it is there."""
    _listen()
    _recorders[recorder] = None


@functools.cache
def _listen() -> None:
    # What Python is told to call there it calls for good, and whatever that holds stays.
    os.register_at_fork(after_in_child=_forked)


def _forked() -> None:
    for recorder in list(_recorders):
        recorder.on_fork()

"""NumPy's files: one array, or an archive of several."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from repro_audit.checkpoint.contents import Held, Value, hash_of, name_of, told
from repro_audit.checkpoint.memory import Reading, Span
from repro_audit.engine import array_view
from repro_audit.errors import UnsupportedTensorError

MAGIC = b"\x93NUMPY"


def read_arrays(span: Span) -> tuple[dict[str, Held], dict[str, Value]]:
    """The arrays of an .npz file by their names, that of an .npy file under `array`; those of words
    and dates are values.

    Raises what NumPy does where it is damaged, or holds Python's objects, which are pickles.
    """
    tensors: dict[str, Held] = {}
    values: dict[str, Value] = {}

    def take(name: str, array: np.ndarray[Any, Any]) -> None:
        try:
            tensors[name] = Held.of(array_view(array))
        except UnsupportedTensorError:
            words = f"{array.dtype}{list(array.shape)}, {hash_of(array.tobytes())}"
            values[name] = told(words)

    with Reading(span) as file:
        found = np.load(file, allow_pickle=False)
        if isinstance(found, NpzFile):
            with found:
                for name in found.files:
                    take(name_of(name), np.asarray(found[name]))
        else:
            take("array", found)
            if file.read(1):
                raise ValueError("more follows the array: several of them in one file")
    return tensors, values

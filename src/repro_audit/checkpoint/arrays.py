"""NumPy's files: one array, or an archive of several."""

from __future__ import annotations

import numpy as np
from numpy.lib.npyio import NpzFile

from repro_audit.checkpoint.contents import Held
from repro_audit.checkpoint.memory import UNREADABLE, Reading, Span
from repro_audit.engine import array_view
from repro_audit.errors import CheckpointError, UnsupportedTensorError

MAGIC = b"\x93NUMPY"


def read_arrays(span: Span) -> dict[str, Held]:
    """The arrays of an .npz file by their names, that of an .npy file under `array`.

    Raises CheckpointError where it is damaged, or holds Python's objects, which are pickles.
    """
    try:
        with Reading(span) as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, NpzFile):
                with found:
                    return {name: Held.of(array_view(found[name])) for name in found.files}
            return {"array": Held.of(array_view(found))}
    except (*UNREADABLE, UnsupportedTensorError) as error:
        raise CheckpointError(
            f"{span.what} has no arrays of numbers to read ({error}). Save it anew, without "
            "objects."
        ) from error

"""Where events go: what the recorder asks of the trace writer."""

from __future__ import annotations

from typing import Any, Protocol

from repro_audit.model import Json

Row = tuple[Any, ...]


class Sink(Protocol):
    """Where events go: the trace writer. Rows have the columns of the trace's tables."""

    events: list[Row]
    outputs: list[Row]
    inputs: list[Row]
    clock: list[Row]

    def site(self, module: str, op: str) -> int:
        """Number of a (module path, op) pair."""

    def code(self, location: str, called_from: str | None) -> int:
        """Number of a call site."""

    def spec(self, dtype: str, shape: tuple[int, ...], device: str) -> int:
        """Number of a tensor's dtype, shape and device."""

    def thread(self, name: str) -> int:
        """A number for a thread that begins; the main thread's is 0."""

    def end(self, thread: int) -> None:
        """Note that a thread has come to its end."""

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        """Keep bytes: 0 of the memory of arguments, 1 an output's stream, 2 a generator's state."""

    def call(self, event: int, call: Json) -> None:
        """Keep the description of an operator's call."""

    def flush(self) -> None:
        """Write the rows and clear the lists in place."""

    def discard_connection(self) -> None:
        """Forget the file: this process is a fork and the file its parent's."""


class Kept(Sink, Protocol):
    """A sink that takes what tensors hold."""

    samples: list[Row]
    reductions: list[Row]
    measured: list[Row]

    def unkeep(self, event: int, position: int) -> None:
        """Let an output's bytes go again."""


class Revisable(Sink, Protocol):
    """A sink that can take back what it was given."""

    def attend(self, event: int) -> None:
        """Note that the inputs of an event, already written, are kept."""

    def cut_off(self, last: dict[int, int]) -> int:
        """Take back what comes after the last event of each thread; how many events are left."""

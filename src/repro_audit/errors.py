"""Every error the package raises, each with the exit code its command ends with.

A message says what is wrong in its first sentence and names the way out in its last.
"""

from __future__ import annotations

from typing import Literal

EXIT_IDENTICAL = 0
EXIT_DIVERGENT = 1
EXIT_USAGE = 2
EXIT_PROGRAM_FAILED = 3
EXIT_INCONCLUSIVE = 4
EXIT_INTERNAL = 5
EXIT_INTERRUPTED = 130
# What `git bisect run` takes for a commit that can be neither good nor bad, and for its own end.
EXIT_SKIP = 125
EXIT_STOP_BISECTING = 128


# What Python puts before a traceback of what ended no program.
BESIDE = ("Exception ignored in", "Exception in thread")


class ReproAuditError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = EXIT_INTERNAL

    @property
    def in_a_line(self) -> str:
        """What went wrong, without what follows it but the program's exception, or last word."""
        first, *rest = str(self).splitlines()
        words = [line[2:] for line in rest if line.startswith("  ")]
        if not words:
            return first.rstrip(":")
        traceback = [
            at
            for at, line in enumerate(words)
            # Not one of what could not be raised.
            if line.startswith("Traceback (most") and not (at and words[at - 1].startswith(BESIDE))
        ]
        below = words[traceback[-1] + 1 :] if traceback else []
        # What is printed after a traceback, by what ends later, is not why it ended.
        raised = next((line for line in below if not line.startswith(" ")), words[-1])
        return f"{first.rstrip(':')}: {raised.strip()}"


class UsageError(ReproAuditError):
    """What was asked for cannot be done as asked: a missing file, an unknown option value."""

    exit_code = EXIT_USAGE


class ProgramFailedError(ReproAuditError):
    """The audited program raised, exited non-zero, was killed, or did not end in time."""

    exit_code = EXIT_PROGRAM_FAILED


class InconclusiveError(ReproAuditError):
    """There is no evidence to judge by: no events, a broken trace, an unknown version."""

    exit_code = EXIT_INCONCLUSIVE


class EngineError(ReproAuditError):
    """A forced engine is not there, or an engine cannot take the input it was given."""

    exit_code = EXIT_USAGE


class CheckpointError(InconclusiveError):
    """A checkpoint is missing, damaged, or of a kind that cannot be read."""


class UnsupportedTensorError(EngineError, TypeError):
    """The tensor has no bits of its own to fingerprint (sparse, nested, quantized, meta, fake)."""


class TraceError(InconclusiveError):
    """A trace file is missing, truncated, of another version, or not a trace."""


class ReplicaDriftError(ReproAuditError):
    """Ranks that are to hold the same tensors do not.

    `tensors` are the names of those that differ, `ranks` those that hold others than most.
    """

    exit_code = EXIT_DIVERGENT

    def __init__(self, message: str, tensors: tuple[str, ...], ranks: tuple[int, ...]) -> None:
        super().__init__(message)
        self.tensors = tensors
        self.ranks = ranks


class NotReproducibleError(ReproAuditError, AssertionError):
    """A function did not do the same again; the message is the report, `audit` what it is of."""

    exit_code = EXIT_DIVERGENT

    def __init__(self, message: str, audit: object) -> None:
        super().__init__(message)
        self.audit = audit


class SuspectedHardwareError(NotReproducibleError):
    """A step came out otherwise once, and never again: no program does that, but for rare races.

    `tensors` are the names of those that differed, `odd` says which of the two calls the replays
    disagree with (None where that is not known), `ranks` which ranks saw it, of several. `audit`
    compares the replays.
    """

    def __init__(
        self,
        message: str,
        audit: object,
        *,
        tensors: tuple[str, ...],
        odd: Literal["first", "second"] | None,
        ranks: tuple[int, ...],
    ) -> None:
        super().__init__(message, audit)
        self.tensors = tensors
        self.odd = odd
        self.ranks = ranks


class SkippedError(ReproAuditError):
    """Under `git bisect run`: this commit could not be audited, for the reason that is told."""

    exit_code = EXIT_SKIP


class InterruptedRunError(ReproAuditError):
    """The user interrupted the audit."""

    exit_code = EXIT_INTERRUPTED

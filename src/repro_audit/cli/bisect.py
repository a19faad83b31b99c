"""What `git bisect run` is told of a commit that cannot be audited: to skip it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from repro_audit.errors import InterruptedRunError, ReproAuditError, SkippedError


@contextlib.contextmanager
def skipping(*, enabled: bool) -> Iterator[None]:
    """Turn every failure but an interruption into a SkippedError, if `enabled`."""
    try:
        yield
    except InterruptedRunError:
        raise
    except ReproAuditError as error:
        if not enabled:
            raise
        raise SkippedError(f"{error}\nThis commit is skipped.") from error

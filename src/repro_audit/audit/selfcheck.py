"""`--self-check`: does an observed program end in the state of an unobserved one?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from repro_audit.audit.session import Finished, Session
from repro_audit.model import SelfCheck
from repro_audit.replicate import endstate


def check(session: Session, observed: Finished, end_state: Path) -> SelfCheck:
    """Run twice unobserved, and compare what both agree on with the observed run.

    Compared are every parameter and buffer, the states of the global generators, and what the
    program printed. What runs of one kind do not agree on cannot be compared: where the two kinds
    seem to differ there is one more observed run, since what varies may agree twice by chance.
    """
    session.total += 2
    plain: list[dict[str, str]] = []
    for name in ("plain-1", "plain-2"):
        path = session.directory / f"{name}.end.json"
        printed = session.unobserved(name, end_state=str(path.resolve()))
        plain.append(_state(path, printed))
    seen = [_observed(session, observed, end_state)]
    found = _compared(seen, plain)
    if not found.differing:
        return found
    session.total += 1
    device = session.request.replicas[0][1]
    again = session.observed(
        "observed-again", "self-check", device=device, end_state=str(end_state)
    )
    seen.append(_observed(session, again, end_state))
    if again.trace.stale_reads and not (observed.trace.stale_reads or session.request.isolate):
        # A program that goes on from what a run before it left did so in the unobserved runs.
        del seen[0]
    return _compared(seen, plain)


def _compared(seen: Sequence[dict[str, str]], plain: Sequence[dict[str, str]]) -> SelfCheck:
    states = [*seen, *plain]
    everything = {item for state in states for item in state}
    # A generator that one of the runs never loaded is nothing that a program could have drawn from.
    unloaded = {
        item
        for item in everything
        if item.rpartition(": ")[2].startswith("generator ")
        and any(item not in state for state in states)
    }
    compared = sorted(everything - unloaded)
    varying = tuple(
        item
        for item in compared
        if any(len({state.get(item) for state in kind}) > 1 for kind in (seen, plain))
    )
    stable = [item for item in compared if item not in set(varying)]
    differing = tuple(item for item in stable if seen[0].get(item) != plain[0].get(item))
    return SelfCheck(compared=len(stable), varying=varying, differing=differing)


def _observed(session: Session, run: Finished, end_state: Path) -> dict[str, str]:
    return _state(end_state, session.directory / f"{run.info.name}.out")


def _state(path: Path, printed: Path) -> dict[str, str]:
    items = endstate.read(path)
    items["printed output"] = hashlib.sha256(printed.read_bytes()).hexdigest()
    return items

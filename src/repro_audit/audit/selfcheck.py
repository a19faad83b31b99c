"""`--self-check`: does an observed program end in the state of an unobserved one?"""

from __future__ import annotations

import hashlib
from pathlib import Path

from repro_audit.audit.session import Finished, Session
from repro_audit.model import SelfCheck
from repro_audit.replicate import endstate


def check(session: Session, observed: Finished, end_state: Path) -> SelfCheck:
    """Run twice unobserved, and compare what both agree on with the observed run.

    Compared are every parameter and buffer, the states of the global generators, and what the
    program printed. What two unobserved runs do not agree on cannot be compared.
    """
    session.total += 2
    plain: list[dict[str, str]] = []
    for name in ("plain-1", "plain-2"):
        path = session.directory / f"{name}.end.json"
        printed = session.unobserved(name, end_state=str(path.resolve()))
        plain.append(_state(path, printed))
    found = _compared(_observed(session, observed, end_state), *plain)
    if found.differing and not observed.trace.stale_reads and not session.request.isolate:
        # A program that goes on from what a run before it left did so in the unobserved runs.
        session.total += 1
        device = session.request.replicas[0][1]
        again = session.observed(
            "observed-again", "self-check", device=device, end_state=str(end_state)
        )
        if again.trace.stale_reads:
            return _compared(_observed(session, again, end_state), *plain)
    return found


def _compared(seen: dict[str, str], plain: dict[str, str], again: dict[str, str]) -> SelfCheck:
    everything = plain.keys() | again.keys() | seen.keys()
    # A generator that one of the runs never loaded is nothing that a program could have drawn from.
    unloaded = {
        item
        for item in everything
        if item.rpartition(": ")[2].startswith("generator ")
        and any(item not in state for state in (seen, plain, again))
    }
    varying = tuple(
        item for item in sorted(everything - unloaded) if plain.get(item) != again.get(item)
    )
    stable = sorted(everything - unloaded - set(varying))
    differing = tuple(item for item in stable if seen.get(item) != plain.get(item))
    return SelfCheck(compared=len(stable), varying=varying, differing=differing)


def _observed(session: Session, run: Finished, end_state: Path) -> dict[str, str]:
    return _state(end_state, session.directory / f"{run.info.name}.out")


def _state(path: Path, printed: Path) -> dict[str, str]:
    items = endstate.read(path)
    items["printed output"] = hashlib.sha256(printed.read_bytes()).hexdigest()
    return items

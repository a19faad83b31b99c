"""Which conditions could matter for a divergence, by what the runs did: the rest is not tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro_audit.audit.session import Finished
from repro_audit.control.pins import PINS, Pin
from repro_audit.model import Mode
from repro_audit.model.codes import TAINTED


@dataclass(frozen=True, slots=True)
class Seen:
    """What runs did, as far as they were looked at; all operators of the first if `whole`."""

    runs: Sequence[Finished]
    whole: bool

    def did(self, part: str) -> bool:
        """False if no event's name has this part."""
        return any(part in op for _, op in self.runs[0].trace.sites.values())

    def read_unwritten(self) -> bool:
        """False if no operator read memory of `empty*` that was not wholly written before."""
        return not self.whole or any(flags & TAINTED for flags in self.runs[0].trace.flags)

    def threads(self) -> bool:
        """True if more than one of Python's threads in a process did anything."""
        owners = {self.runs[0].trace.owner(i) for i in range(len(self.runs[0].trace))}
        return len(owners) > len({owner.process for owner in owners})

    def several_cores(self) -> bool:
        """False if operators had one thread each."""
        settings = [run.info.manifest.get("torch", {}) for run in self.runs]
        return any(known.get("get_num_threads") != 1 for known in settings)


def relevant(mode: Mode, devices: set[str], *, seen: Seen | None = None) -> list[str]:
    """Pins that could matter for runs of a mode on devices; those of a single op if not `seen`."""
    kinds = {device.partition(":")[0] for device in devices}
    return [
        pin.name
        for pin in PINS
        if (pin.device is None or pin.device in kinds)
        and (not pin.as_is or mode == "as-is")
        and not (mode == "deterministic" and pin.name == "deterministic")
        and (pin.call if seen is None else _could_matter(pin, seen))
    ]


def _could_matter(pin: Pin, seen: Seen) -> bool:
    match pin.name:
        case "math-attention":
            return not seen.whole or seen.did("scaled_dot_product")
        case "filled-memory":
            return seen.read_unwritten()
        case "loader-order":
            return seen.did("DataLoader.__next__")
        case "threads-in-turn":
            return seen.threads()
        case "one-thread":
            return seen.several_cores()
    return True

"""How the devices that ran one program compare: which of them computes what the others do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from repro_audit.model.audit import EventCounts, Origin
from repro_audit.model.drift import Gap

Standing = Literal["agrees", "differs", "varies", "disputed", "single", "failed"]

_ODD = frozenset({"differs", "varies", "failed"})


@dataclass(frozen=True, slots=True)
class Screened:
    """One device, beside those of its kind.

    `hardware` is what it is called; devices of one `kind`, a number from 0, have the same hardware
    and the same libraries, and only they are compared. Of its `runs`, names among the audit's,
    `differing` are not what most of its kind give. It *agrees* where none is, *differs* where all
    are and give one other result, *varies* where its own runs do not give one result, is *disputed*
    where no result is that of most, *single* where its one run is all that there is of its kind,
    and *failed* where a run did not end well, for `reason`. `events` and `origin` are between one
    such run and what most give, or, where there is no such thing, between two runs of its kind;
    `largest` is the largest gap there, as a matrix has it.
    """

    name: str
    hardware: str
    kind: int
    runs: tuple[str, ...]
    standing: Standing
    differing: int = 0
    events: EventCounts | None = None
    origin: Origin | None = None
    largest: Gap | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Screening:
    """The devices that were compared, each in so many `rounds`: runs of the same program."""

    devices: tuple[Screened, ...]
    rounds: int

    @property
    def kinds(self) -> int:
        """How many kinds of devices there are."""
        return len({device.kind for device in self.devices})

    def of_kind(self, kind: int) -> tuple[Screened, ...]:
        """The devices of a kind."""
        return tuple(device for device in self.devices if device.kind == kind)

    @property
    def suspects(self) -> tuple[Screened, ...]:
        """The devices that do not do what others of their kind do, where these are not fewer."""
        return tuple(d for d in self.devices if d.standing in _ODD and self._tells(d.kind))

    @property
    def alone(self) -> tuple[Screened, ...]:
        """The devices that do not repeat themselves, and have no other of their kind."""
        return tuple(
            device
            for device in self.devices
            if device.standing == "varies" and len(self.of_kind(device.kind)) == 1
        )

    @property
    def disputed(self) -> tuple[Screened, ...]:
        """The devices that differ from others, without a majority to tell which are right."""
        return tuple(device for device in self.devices if device.standing == "disputed")

    @property
    def unaccused(self) -> tuple[Screened, ...]:
        """The devices that vary or fail as most of their kind do: it is the program that does."""
        lone = self.alone
        return tuple(
            device
            for device in self.devices
            if device.standing in _ODD and not self._tells(device.kind) and device not in lone
        )

    def _tells(self, kind: int) -> bool:
        """Whether devices of a kind that agree are as many as those that are odd."""
        standings = [device.standing for device in self.of_kind(kind)]
        agreeing = standings.count("agrees")
        return agreeing > 0 and agreeing >= sum(standing in _ODD for standing in standings)

"""The part of the text report on devices: which agree, and which does not do what most do."""

from __future__ import annotations

from collections.abc import Sequence

from repro_audit.model import Audit, Screened, Screening, Standing
from repro_audit.report import phrases
from repro_audit.report.page import Sheet, glued
from repro_audit.report.phrases import number, printable

_SHOWN = 8
# The label of each standing, in the order in which they are told; seven letters at most.
LABELS: dict[Standing, str] = {
    "agrees": "agree",
    "disputed": "apart",
    "single": "single",
    "differs": "differs",
    "varies": "varies",
    "failed": "failed",
}
_RARELY = 0.25


def devices_of(audit: Audit, screening: Screening) -> str:
    """What the verdict is about: `cuda:3 is unlike the 7 others of its kind`."""
    devices = screening.devices
    size = f"({phrases.count(len(devices), 'device')}, {_runs(audit, screening)})"
    if audit.verdict == "identical":
        events = phrases.count(audit.events.compared, "event")
        return f"{_agreeing(screening)}, {_runs(audit, screening)}, {events}"
    if audit.verdict != "divergent":
        return f"nothing is known of these devices {size}"
    suspects = screening.suspects or screening.alone
    if not suspects:
        apart = _names(screening.disputed)
        return f"{apart} differ, and no others tell which is wrong {size}"
    if len(suspects) > 1:
        return f"{_names(suspects)} are unlike others of their kind {size}"
    (device,) = suspects
    others = [other for other in screening.of_kind(device.kind) if other is not device]
    peers = len(others)
    agreeing = sum(other.standing == "agrees" for other in others)
    name = printable(device.name)
    if device.standing == "failed":
        return f"{name} fails where others do not {size}"
    if not peers:
        return f"{name} does not repeat itself {size}"
    which = "the other" if peers == 1 else f"the {number(peers)} others"
    if agreeing < peers:
        which = f"{number(agreeing)} of {number(peers)} others"
    return f"{name} is unlike {which} of its kind {size}"


def render_screening(audit: Audit, screening: Screening, page: Sheet) -> None:
    """The devices of each kind, those together that stand alike."""
    for kind in range(screening.kinds):
        of_kind = screening.of_kind(kind)
        for standing, label in LABELS.items():
            devices = [device for device in of_kind if device.standing == standing]
            if not devices:
                continue
            called = f"{number(len(devices))} x {printable(devices[0].hardware or 'device')}"
            if standing in {"agrees", "disputed", "single"}:
                alone = len(of_kind) == 1 and standing == "agrees"
                itself = ", compared with itself alone" if alone else ""
                page.labelled(label, f"{glued(called)}: {_names(devices)}{itself}")
                continue
            for device in devices[:_SHOWN]:
                page.labelled(label, _told(device, page))
            if len(devices) > _SHOWN:
                page.labelled("", f"and {number(len(devices) - _SHOWN)} more")
    missed = (1 - _RARELY) ** screening.rounds
    # What was recorded elsewhere cannot be asked for again from here.
    if audit.verdict == "identical" and audit.directory is not None and missed >= 0.01:
        more = glued(f"--rounds {10 if screening.rounds < 10 else 2 * screening.rounds}")
        said = f"a device that errs in 1 of 4 runs would be missed {missed:.0%} of the time"
        page.paragraph(f"{said}: {more}", indent=2)


def _runs(audit: Audit, screening: Screening) -> str:
    if screening.rounds == 1:
        return phrases.count(audit.observed.runs, "run")
    return f"{phrases.count(screening.rounds, 'round')}"


def _agreeing(screening: Screening) -> str:
    devices = screening.devices
    if len(devices) == 1:
        return f"{printable(devices[0].name)} repeats itself"
    said = f"{number(len(devices))} devices agree"
    return said if screening.kinds == 1 else f"{said}, each with those of its kind"


def _told(device: Screened, page: Sheet) -> str:
    said = printable(device.name)
    if device.hardware:
        said += f" ({printable(device.hardware)})"
    if device.reason is not None:
        return f"{said}: {printable(device.reason)}"
    runs = len(device.runs)
    if device.differing and runs > 1:
        said += f" in {device.differing} of {runs} runs"
    if device.origin is not None:
        key = device.origin.key
        place = phrases.site(key, rank=device.origin.rank, recompute=device.origin.recompute)
        said += f", first at {page.path(place)}"
    if device.largest is not None:
        apart = phrases.short(device.largest.deviation.rms)
        said += f" {glued(f'(at most {apart} of its size)')}"
    return said


def _names(devices: Sequence[Screened]) -> str:
    names = [printable(device.name) for device in devices]
    if len(names) > _SHOWN:
        return f"{', '.join(names[: _SHOWN - 1])} and {number(len(names) - _SHOWN + 1)} more"
    return phrases.listing(names)

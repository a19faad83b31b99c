"""What is behind devices that differ: hardware, where most of a kind agree and few do not."""

from __future__ import annotations

from collections.abc import Sequence

from repro_audit.model import Cause, Screened, Screening

_NAMED = 6


def suspected(screening: Screening, *, trusted: bool, recorded: bool) -> Cause | None:
    """The cause of what was found, likely at most; None where all devices agree.

    `trusted` says that the program repeats itself on a device that works: of a single device that
    does not repeat itself, it is else not known whether the device or the program does not.
    `recorded` says that the runs were made elsewhere.
    """
    suspects = screening.suspects
    odd = [device for device in suspects if trusted or not _alone(device, screening)]
    if odd:
        longer = f"screen all of them again, and longer: --rounds {max(10, 4 * screening.rounds)}"
        if recorded:
            longer = "record it there again, several times, and screen all of these recordings"
        elif not trusted and any(device.standing == "varies" for device in odd):
            longer += "; where others come to vary too, it is the program"
        it = "it" if len(odd) == 1 else "them"
        return Cause(
            "suspected-hardware",
            "likely",
            tuple(_evidence(device, screening) for device in odd[:_NAMED]),
            (longer, f"take {it} out of service, and run the maker's diagnosis"),
        )
    if suspects:
        return Cause(
            "unknown",
            "likely",
            tuple(_evidence(device, screening) for device in suspects[:_NAMED]),
            (
                "screen without a program of your own: the one that comes along is known to repeat "
                "itself",
                "run your program on another device of that kind",
            ),
        )
    if not any(device.standing == "disputed" for device in screening.devices):
        return None
    return Cause(
        "unknown",
        "likely",
        ("each of them repeats itself, and no result is that of most: one more device would tell",),
        (
            "record the same program on a further device of that kind (repro-audit record), and "
            "screen the recordings",
        ),
    )


def _evidence(device: Screened, screening: Screening) -> str:
    runs = len(device.runs)
    if device.standing == "failed":
        said = f"{device.name} failed: {device.reason}"
    elif device.standing == "differs":
        each = "" if runs == 1 else f" in all of {runs} runs"
        said = f"{device.name} gives another result{each}"
    else:
        some = f" ({device.differing} of {runs} runs differ)" if device.differing else ""
        said = f"{device.name} does not repeat itself{some}"
    return f"{said}; {_others(_peers(device, screening))}"


def _others(peers: Sequence[Screened]) -> str:
    if not peers:
        return "there is no other of its kind to tell whose fault that is"
    agreeing = sum(peer.standing == "agrees" for peer in peers)
    if agreeing == len(peers):
        if agreeing == 1:
            return "the other of its kind gives one result in all of its runs"
        return f"the {agreeing} others of its kind give one result in all of their runs"
    return f"{agreeing} of the {len(peers)} others of its kind give one result in all of their runs"


def _peers(device: Screened, screening: Screening) -> list[Screened]:
    return [other for other in screening.of_kind(device.kind) if other.name != device.name]


def _alone(device: Screened, screening: Screening) -> bool:
    return device.standing != "failed" and not _peers(device, screening)

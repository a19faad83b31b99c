"""What is behind devices that differ: hardware, where most of a kind agree and few do not."""

from __future__ import annotations

from collections.abc import Sequence

from repro_audit.model import Cause, Screened, Screening

_NAMED = 6


def suspected(screening: Screening, *, trusted: bool, recorded: bool, stale: bool) -> Cause | None:
    """The cause of what was found, likely at most; None where nothing is held against a device.

    `trusted` says that the program repeats itself on a device that works: of a single device that
    does not repeat itself, and of several, it is else not known whether they or the program do not.
    `recorded` says that the runs were made elsewhere, `stale` that some began with what earlier
    ones had left.
    """
    odd = [*screening.suspects, *screening.alone]
    if not odd:
        return _disputed(screening) if screening.disputed else None
    evidence = tuple(_evidence(device, screening) for device in odd[:_NAMED])
    if stale:
        return Cause(
            "unknown",
            "likely",
            (*evidence, "runs read files that earlier ones had written"),
            ("--isolate gives each run its own copy of the directory",),
        )
    varying = sum(device.standing == "varies" for device in odd)
    if not trusted and (screening.alone or varying > 1):
        return Cause(
            "unknown",
            "likely",
            (*evidence, "devices or the program may do so"),
            (
                "screen without a program of your own: the one that comes along is known to repeat "
                "itself",
                "see whether yours does, on a device that works: repro-audit run --runs 10",
            ),
        )
    longer = f"screen all of them again, and longer: --rounds {max(10, 4 * screening.rounds)}"
    if recorded:
        longer = "record it again, as often on each of them, and screen all of these recordings"
    elif varying and not trusted:
        longer += "; where others come to vary too, it is the program"
    it = "it" if len(odd) == 1 else "them"
    return Cause(
        "suspected-hardware",
        "likely",
        evidence,
        (longer, f"take {it} out of service, and run the maker's diagnosis"),
    )


def _disputed(screening: Screening) -> Cause:
    each = "each of them repeats itself" if screening.rounds > 1 else "each of them ran once"
    return Cause(
        "unknown",
        "likely",
        (f"{each}, and no result is that of most: one more device would tell",),
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
    peers = [other for other in screening.of_kind(device.kind) if other.name != device.name]
    return f"{said}; {_others(peers)}"


def _others(peers: Sequence[Screened]) -> str:
    if not peers:
        return "there is no other of its kind"
    agreeing = [peer for peer in peers if peer.standing == "agrees"]
    runs = sum(len(peer.runs) for peer in agreeing)
    if len(peers) == 1 and agreeing:
        once = "ran once, and well" if runs == 1 else f"gives one result in all of its {runs} runs"
        return f"the other of its kind {once}"
    of = f"{len(agreeing)} of {len(peers)}" if len(agreeing) < len(peers) else f"the {len(peers)}"
    return f"{of} others of its kind give one result in all of their {runs} runs"

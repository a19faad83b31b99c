"""What the ranks of a process group tell each other, and how they are named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from repro_audit import engine
from repro_audit.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

_SHOWN = 4
_FAILED = b"\xff" * 8


def gathered(mine: bytes, group: ProcessGroup | None, ranks: int) -> list[bytes]:
    """The bytes of all ranks, in their order: as many from each, a multiple of 8."""
    import torch
    import torch.distributed as dist

    # No part of the program: a recording of it is not to tell whether it asked.
    with engine.unseen():
        sent = torch.frombuffer(bytearray(mine), dtype=torch.int64).to(_device(group))
        taken = [torch.empty_like(sent) for _ in range(ranks)]
        dist.all_gather(taken, sent, group=group)
        return [bytes(row.cpu().numpy().tobytes()) for row in taken]


def agreed(work: Callable[[], int], failing: type[Exception] = Exception) -> list[int]:
    """What each rank of the default process group answers, at least 0; of one process its own.

    A collective call, of 8 bytes a rank. A rank whose work raises what is `failing` lets the others
    know, who raise UsageError.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return [work()]
    ranks = dist.get_world_size()
    try:
        mine = work()
    except failing:
        gathered(_FAILED, None, ranks)
        raise
    found = gathered(mine.to_bytes(8, "little"), None, ranks)
    failed = [rank for rank, row in enumerate(found) if row == _FAILED]
    if failed:
        raise UsageError(
            f"{said_of(range(ranks), failed, 'could')} not take part; look at the error there"
        )
    return [int.from_bytes(row, "little") for row in found]


def _device(group: ProcessGroup | None) -> torch.device:
    """Where a group's backends take tensors: on the host if one does."""
    import torch
    import torch.distributed as dist

    kinds = [entry.partition(":")[0] for entry in dist.get_backend_config(group).split(",")]
    return torch.device("cpu") if "cpu" in kinds else torch.device(kinds[0])


def said_of(ranks: Sequence[int], others: Sequence[int], verb: str = "") -> str:
    """The ranks at these places, and what they do: "rank 3 holds", "ranks 1, 3 hold"."""
    shown = ", ".join(str(ranks[at]) for at in others[:_SHOWN])
    more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
    if len(others) == 1:
        return f"rank {shown} {verb}{'s' if verb == 'hold' else ''}".rstrip()
    return f"ranks {shown}{more} {verb}".rstrip()

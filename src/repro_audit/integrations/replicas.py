"""Do all ranks of a process group hold the same tensors? A few bytes a tensor tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro_audit import engine
from repro_audit.diagnose.replicas import outliers
from repro_audit.errors import ReplicaDriftError, UsageError
from repro_audit.integrations.ranks import gathered, said_of
from repro_audit.integrations.tensors import nested

if TYPE_CHECKING:
    import torch
    from torch.distributed import ProcessGroup

_SHOWN = 4
_DIGEST = 16


def check_replicas(*holders: Any, group: ProcessGroup | None = None, buffers: bool = False) -> int:
    """Raise ReplicaDriftError unless all ranks hold the same tensors, bit by bit; how many.

    ```
    for step, batch in enumerate(loader):
        train_step(batch)
        if step % 100 == 0:
            repro_audit.check_replicas(model, optimizer)
    ```
    `holders` are modules (their parameters, and with `buffers` their buffers, which ranks of
    DistributedDataParallel have of their own until the next forward), optimizers (the tensors that
    they keep), or mappings of names to tensors. Of tensors that are sharded each rank has its
    own part: name the `group` of ranks that hold the same ones; else it is all of them.

    A collective call: all ranks of the group make it. Costs one read of the tensors, 32 bytes a
    rank where all agree, and 16 bytes a tensor and rank where they do not; on a device it waits for
    that. Every rank raises, and names the tensors, and the ranks that hold others than most do. Of
    a DTensor the local part is meant. Raises UsageError where there is no process group, no tensor,
    or a rank could not take part; that one raises what kept it, as UnsupportedTensorError.
    """
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        raise UsageError(
            "there is no process group whose ranks could hold replicas; call "
            "torch.distributed.init_process_group() first"
        )
    ranks = dist.get_process_group_ranks(group or dist.group.WORLD)
    try:
        named = _all(holders, buffers=buffers)
        names = sorted(named)
        kinds = [_hashed(f"{n}\t{named[n].dtype}\t{tuple(named[n].shape)}") for n in names]
        digests = engine.tensor_digests([named[name] for name in names])
    except Exception:
        # The others must not wait for this one.
        gathered(bytes(2 * _DIGEST), group, len(ranks))
        raise
    found = gathered(_hashed(b"".join(kinds)) + _hashed(b"".join(digests)), group, len(ranks))
    failed = [at for at, row in enumerate(found) if row == bytes(2 * _DIGEST)]
    if failed:
        raise UsageError(
            f"{said_of(ranks, failed, 'could')} not take part; look at the error there"
        )
    if len({row[:_DIGEST] for row in found}) > 1:
        raise _others(names, kinds, ranks, group, [row[:_DIGEST] for row in found])
    if not names:
        raise UsageError("there is nothing to compare: no rank holds a tensor in what was given")
    if len(set(found)) > 1:
        raise _drift(names, ranks, gathered(b"".join(digests), group, len(ranks)))
    return len(names)


def _hashed(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return hashlib.blake2b(data, digest_size=_DIGEST).digest()


def _all(holders: Sequence[Any], *, buffers: bool) -> dict[str, torch.Tensor]:
    """Every tensor by its name. Raises UsageError where two have one."""
    found: dict[str, torch.Tensor] = {}
    for at, holder in enumerate(holders):
        prefix = f"{at}." if len(holders) > 1 else ""
        for name, tensor in _tensors(holder, buffers=buffers):
            if prefix + name in found:
                raise UsageError(f"two tensors are called {prefix + name}; name them apart")
            # Of a DTensor a rank holds a part. It is not the program that asks.
            with engine.unseen():
                local = tensor.to_local() if hasattr(tensor, "to_local") else tensor
                found[prefix + name] = local.detach()
    return found


def _tensors(holder: Any, *, buffers: bool) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    if isinstance(holder, torch.nn.Module):
        yield from holder.named_parameters()
        if buffers:
            yield from holder.named_buffers()
    elif isinstance(holder, torch.optim.Optimizer):
        parameters = [p for group in holder.param_groups for p in group["params"]]
        for at, parameter in enumerate(parameters):
            yield from nested(holder.state.get(parameter, {}), f"state.{at}")
        for at, group in enumerate(holder.param_groups):
            told = {key: value for key, value in group.items() if key != "params"}
            yield from nested(told, f"group.{at}")
    elif isinstance(holder, Mapping):
        yield from nested(holder, "")
    else:
        raise UsageError(
            f"{type(holder).__name__} holds no tensors that have names; give a module, an "
            "optimizer, or a mapping of names to tensors"
        )


def _others(
    names: Sequence[str],
    kinds: Sequence[bytes],
    ranks: Sequence[int],
    group: ProcessGroup | None,
    each: Sequence[bytes],
) -> ReplicaDriftError:
    """Ranks that hold tensors of other names, dtypes or shapes; of which, as far as known here."""
    counts = [
        int.from_bytes(row, "little")
        for row in gathered(len(kinds).to_bytes(8, "little"), group, len(ranks))
    ]
    padded = b"".join(kinds).ljust(max(counts) * _DIGEST, b"\0")
    rows = gathered(padded, group, len(ranks))
    held = [{row[at : at + _DIGEST] for at in range(0, len(row), _DIGEST)} for row in rows]
    own = [
        name for name, kind in zip(names, kinds, strict=True) if any(kind not in h for h in held)
    ]
    shown = ", ".join(own[:_SHOWN]) + (f" and {len(own) - _SHOWN:,} more" if own[_SHOWN:] else "")
    others = outliers(dict(enumerate(each)))
    said = f" (this one alone, or not all: {shown})" if own else ""
    return ReplicaDriftError(
        f"{said_of(ranks, others, 'hold')} tensors of other names, dtypes or shapes than most of "
        f"the {len(ranks)} ranks{said}. Replicas have the same ones; of sharded tensors name the "
        "group of ranks that do: group=...",
        tensors=tuple(own),
        ranks=tuple(ranks[at] for at in others),
    )


def _drift(names: Sequence[str], ranks: Sequence[int], found: Sequence[bytes]) -> ReplicaDriftError:
    differing: list[str] = []
    others: set[int] = set()
    for at, name in enumerate(names):
        each = [row[at * _DIGEST : (at + 1) * _DIGEST] for row in found]
        if len(set(each)) > 1:
            differing.append(name)
            others.update(outliers(dict(enumerate(each))))
    shown = ", ".join(differing[:_SHOWN])
    more = f" and {len(differing) - _SHOWN:,} more" if len(differing) > _SHOWN else ""
    return ReplicaDriftError(
        f"{len(differing):,} of {len(names):,} tensors are not the same on all {len(ranks)} ranks: "
        f"{said_of(ranks, sorted(others), 'hold')} another {shown}{more}. Save no checkpoint of "
        "them; `repro-audit run` of a short run tells where ranks part",
        tensors=tuple(differing),
        ranks=tuple(ranks[at] for at in sorted(others)),
    )

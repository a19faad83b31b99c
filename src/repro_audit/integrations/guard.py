"""A training step made twice from one state: what differs is told before the optimizer steps."""

from __future__ import annotations

import functools
import platform
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from repro_audit import engine
from repro_audit.audit.recording import Recording
from repro_audit.errors import (
    NotReproducibleError,
    ReproAuditError,
    SuspectedHardwareError,
    UsageError,
)
from repro_audit.integrations.before import Before, came_of, check
from repro_audit.integrations.calls import (
    WIDTH,
    T,
    called,
    compared_calls,
    in_turn,
    name_of,
    record_call,
)
from repro_audit.integrations.ranks import agreed, said_of
from repro_audit.model import Audit, Cause

_SHOWN = 4
# What a rank says of a call that ends the checking; of two, where an own tensor is one that other
# ranks have no part in, as they have in a gradient; and of the two that are recorded.
_GO_ON, _UNCHECKED, _STEPPED = range(3)
_SAME, _DIFFER, _OWN_DIFFER = 0, 3, 4
_REPEATS, _VARIES, _VARIES_SEEN = range(3)

_OTHERWISE = "what a step takes or changes outside the model is another in its replay"
_OUTSIDE = (
    "take the batch before the step, and keep counters, caches and generators of its own out of it"
)


class Guard:
    """Makes every so-manieth call of a training step twice, and raises where the two differ.

    ```
    guard = repro_audit.Guard(model, every=100)
    for batch in loader:
        def step():  # forward and backward; no optimizer.step()
            optimizer.zero_grad()
            loss = loss_of(model(batch))
            loss.backward()
            return loss

        loss = guard(step)
        optimizer.step()
    ```
    What a step may change is put back before its second call: the model's buffers, the gradients of
    its parameters, the states of Python's, NumPy's and torch's generators. What came of it, and the
    tensors that it returns, must be the same, bit by bit; training then goes on as though it had
    been made once. The first call is never checked: much is made in it. Several models are one in a
    `torch.nn.ModuleList`.

    A call that is not checked costs nothing but the call. One that is costs another, a copy of
    buffers and gradients, four reads of them and three of the parameters. Of several ranks all make
    each call, with the same `every`; 16 bytes a rank are exchanged. Raises UsageError for what is
    no model, and for an `every` that is no number of calls; UnsupportedTensorError, with its name,
    for a buffer without bits of its own, such as a quantized one.
    """

    def __init__(self, model: torch.nn.Module, *, every: int = 100) -> None:
        if not isinstance(model, torch.nn.Module):
            raise UsageError(
                f"a {type(model).__name__} is no model to guard; several are one in a "
                "torch.nn.ModuleList"
            )
        if not isinstance(every, int) or every < 1:
            raise UsageError(f"every={every!r} checks no step; every=100 checks one in a hundred")
        check(model)
        self._model = model
        self._every = every
        self._calls = 0

    def __call__(self, step: Callable[[], T]) -> T:
        """Make a step, and return what it returns.

        Raises NotReproducibleError, with the report of two more replays, where those differ as
        well; its SuspectedHardwareError where they do not: what happened did not recur. All ranks
        raise. Gradients, buffers and generators are then as before the step. Raises UsageError
        where the step changes parameters, which is the optimizer's to do, and leaves all as that
        call of it did; and where a recording is under way. Raises UnsupportedTensorError, from the
        first call on, where it returns a tensor without bits of its own. What the step itself
        raises passes through, at once and on that rank alone.
        """
        self._calls += 1
        if self._calls == 1:
            returned = step()
            check(self._model, returned)
            return returned
        if self._calls % self._every:
            return step()
        if Recording.under_way is not None:
            raise UsageError(
                "a recording is under way, and would hold each replay of a step; guard the run, or "
                "record it"
            )
        return self._checked(step)

    def _checked(self, step: Callable[[], T]) -> T:
        before = Before(self._model)
        returned = called(step)
        first: dict[str, bytes] = {}
        second: dict[str, bytes] = {}
        try:
            said = agreed(functools.partial(self._begun, before, returned, first))
            if not any(said):
                # Its graph, and what that holds, is not needed a second time.
                del returned
                before.put_back()
                returned = _replayed(step)
                said = agreed(functools.partial(self._ended, before, returned, first, second))
                if any(said) and _STEPPED not in said:
                    del returned
                    raise self._differing(step, before, first, second, said)
        except BaseException:
            before.put_back()
            raise
        if _STEPPED in said:
            # No parameter is kept, so that none can be put back: what its call left is left whole.
            raise _stepped(before, said)
        return returned

    def _begun(self, before: Before, returned: object, first: dict[str, bytes]) -> int:
        """What a rank says of its first call; `first` takes what came of it."""
        if before.stepped():
            return _STEPPED
        if before.made_parameters(self._model):
            return _UNCHECKED
        first.update(came_of(self._model, returned))
        return _GO_ON

    def _ended(
        self, before: Before, returned: object, first: dict[str, bytes], second: dict[str, bytes]
    ) -> int:
        """What a rank says of its two calls; `second` takes what came of that one."""
        # What a step does at times, by a count of its own, it may do in its replay alone.
        if before.stepped():
            return _STEPPED
        second.update(came_of(self._model, returned))
        differing = {name for name in first | second if first.get(name) != second.get(name)}
        if not differing:
            return _SAME
        return _DIFFER if all(name.endswith(".grad") for name in differing) else _OWN_DIFFER

    def _differing(
        self,
        step: Callable[[], object],
        before: Before,
        first: dict[str, bytes],
        second: dict[str, bytes],
        ranks: Sequence[int],
    ) -> NotReproducibleError:
        """What to say of two calls that differ on some rank, by two more of them."""
        name = name_of(step)
        replays: list[dict[str, bytes]] = []
        audits: list[Audit] = []

        def again() -> int:
            with tempfile.TemporaryDirectory(prefix="repro-audit-") as folder:
                traces = [Path(folder, f"replay-{n}") for n in (1, 2)]
                for trace in traces:
                    before.put_back()
                    returned = _replayed(functools.partial(record_call, step, trace, "ops"))
                    replays.append(came_of(self._model, returned))
                    del returned
                audits.append(in_turn(compared_calls(name, traces), _OTHERWISE, _OUTSIDE))
            if audits[0].verdict not in {"identical", "inconclusive"}:
                return _VARIES_SEEN
            return _REPEATS if replays[0] == replays[1] else _VARIES

        # What the step raises does not wait for other ranks: they may be in the midst of it.
        varies = agreed(again, failing=ReproAuditError)
        (audit,) = audits
        call = f"call {self._calls:,} of {name}"
        if any(varies):
            return _not_reproducible(call, audit, varies)
        odd: Literal["first", "second"] | None = None
        if first != second and replays[0] in (first, second):
            odd = "second" if replays[0] == first else "first"
        names = sorted(name for name in first | second if first.get(name) != second.get(name))
        return _suspected(call, audit, names, len(first | second), odd, ranks, self._model)


def _replayed(step: Callable[[], T]) -> T:
    try:
        return step()
    except Exception as error:
        error.add_note(
            "Raised in a replay of the step by repro_audit.Guard; its first call returned. A "
            "guarded step is called again from the same generators, buffers and gradients: keep "
            "what it can do but once out of it."
        )
        raise


def _stepped(before: Before, said: Sequence[int]) -> UsageError:
    names = before.stepped()
    which = _listed(names) if names else f"those of rank {said.index(_STEPPED)}"
    return UsageError(
        f"the step changes parameters ({which}), so that it cannot be made again from the same "
        "state; call optimizer.step(), and write averages of weights, after guard(step), not in it"
    )


def _not_reproducible(call: str, audit: Audit, varies: Sequence[int]) -> NotReproducibleError:
    # It draws random numbers when it is imported.
    from repro_audit.report.terminal import render_text

    head = f"{call} does not do the same again from the same state"
    seen = [rank for rank, what in enumerate(varies) if what == _VARIES_SEEN]
    if _of_several():
        which = [rank for rank, what in enumerate(varies) if what]
        head += f", on {said_of(range(len(varies)), which)}"
    if not seen:
        head += ": in what is not seen (a compiled graph, native code)"
    elif audit.verdict == "identical":
        head += f"; the op is named by {said_of(range(len(varies)), seen)}"
    return NotReproducibleError(f"{head}\n{render_text(audit, WIDTH)}", audit)


def _suspected(
    call: str,
    audit: Audit,
    names: Sequence[str],
    of: int,
    odd: Literal["first", "second"] | None,
    ranks: Sequence[int],
    model: torch.nn.Module,
) -> SuspectedHardwareError:
    """The two calls differ, the two replays do not."""
    several = _of_several()
    saw = [rank for rank, what in enumerate(ranks) if what != _SAME]
    own = [rank for rank, what in enumerate(ranks) if what == _OWN_DIFFER]
    if several and dist.get_rank() not in (own or saw):
        place = f"that of {said_of(range(len(ranks)), own or saw)}, named there"
    else:
        place = _place(model)
    evidence = ["two more replays, of which every op was recorded, are the same in every bit"]
    if odd is not None:
        evidence.append(f"they agree with the {'second' if odd == 'first' else 'first'} call")
    elif names:
        evidence.append("they agree with neither call: being recorded may change what it computes")
    if several:
        seen = f"seen on {said_of(range(len(ranks)), saw)}"
        alone = f", on {said_of(range(len(ranks)), own)} in more than gradients, which all share"
        evidence.append(seen + alone if 0 < len(own) < len(saw) else seen)
    remedies = (
        "go on from here, or from the last checkpoint if the weights may have taken harm before",
        "run `repro-audit screen` there, and take the device out of service if it recurs",
        "on machine after machine it is the program, a race that is rare: `repro-audit run` tells",
    )
    cause = Cause("suspected-hardware", "likely", tuple(evidence), remedies)
    head = f"{call} came out otherwise once"
    head += f"; the {odd} of two was the odd one" if odd is not None else ""
    lines = [head if names else f"{head}, on another rank"]
    if names:
        lines.append(_labelled("differ", f"{len(names):,} of {of:,} tensors: {_listed(names)}"))
    lines.append(_labelled("likely", f"suspected-hardware, {place}: {'; '.join(evidence)}"))
    lines.append(_labelled("try", "; ".join(remedies)))
    return SuspectedHardwareError(
        "\n".join(lines),
        replace(audit, cause=cause),
        tensors=tuple(names),
        odd=odd,
        ranks=tuple(saw) if several else (),
    )


def _labelled(label: str, said: str) -> str:
    return textwrap.fill(said, WIDTH, initial_indent=f"  {label:8}", subsequent_indent=" " * 10)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _of_several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _named(device: torch.device) -> str:
    names = [] if device.type == "cpu" else engine.device_names(device.type)
    return f"{device} ({names[device.index or 0]})" if names else str(device)


def _place(model: torch.nn.Module) -> str:
    """The devices that a model is on, the host, and the rank."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    said = sorted(map(_named, devices))
    rank = f", rank {dist.get_rank()}" if _of_several() else ""
    return f"{' and '.join(said) or 'cpu'} of {platform.node()}{rank}"

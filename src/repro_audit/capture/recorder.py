"""The recorder of one run: starts and stops capture, numbers events, fingerprints tensors."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

import torch

from repro_audit import engine
from repro_audit.capture import parts
from repro_audit.capture.causes import Bound, fits
from repro_audit.capture.dispatch import (
    DATA,
    KIND_BATCH,
    KIND_PARAM,
    KIND_RNG,
    PHASES,
    RNG,
    TAINTED,
    WEIGHTS,
    OpMode,
    paused,
    tensors_in,
    unseen_by_dynamo,
)
from repro_audit.capture.generators import Generators, digest_of
from repro_audit.capture.locations import Locator
from repro_audit.capture.memory import UnwrittenMemory
from repro_audit.capture.modules import ModuleNames
from repro_audit.capture.operators import Operator
from repro_audit.capture.outside import Loaders
from repro_audit.capture.steps import Steps
from repro_audit.capture.threads import Threads
from repro_audit.errors import UnsupportedTensorError
from repro_audit.model import SiteKey

_FLUSH_EVERY = 4096
_PLAIN = (torch.Tensor, torch.nn.Parameter)
# Larger than any activation worth an ULP figure; a capture is held in one SQLite transaction.
_PAYLOAD_LIMIT = 2 << 30

Row = tuple[Any, ...]


class Sink(Protocol):
    """Where events go: the trace writer. Rows have the columns of the trace's tables."""

    events: list[Row]
    outputs: list[Row]
    inputs: list[Row]

    def site(self, module: str, op: str) -> int:
        """Number of a (module path, op) pair."""

    def code(self, location: str) -> int:
        """Number of a call site."""

    def spec(self, dtype: str, shape: tuple[int, ...], device: str) -> int:
        """Number of a tensor's dtype, shape and device."""

    def payload(self, event: int, role: int, position: int, view: memoryview) -> None:
        """Keep a tensor's logical stream."""

    def flush(self) -> None:
        """Write the rows and clear the lists in place."""

    def discard_connection(self) -> None:
        """Forget the file: this process is a fork and the file its parent's."""


class Recorder:
    """Records one run of a program into `sink`, from `start()` to `stop()`.

    Call sites below one of the directories `bases` are shown relative to it.
    Steps are counted by what the program does; without `automatic`, by `end_step()` alone.
    `steps` ends the program after that many steps (a `SystemExit` raised where the step ends, so
    that `finally` blocks run). `optimizer_ops` fingerprints what every operator inside an
    optimizer's step writes, not only the parameters afterwards. `capture` names events whose
    inputs are fingerprinted and whose outputs are kept. `poison` fills `empty*` memory.
    `on_progress(steps, events)` is called at each step and every few thousand events.
    Not reentrant; one recorder a process.
    """

    # Nodes of one thread whose causes are known.
    node_limit = 400_000

    def __init__(
        self,
        sink: Sink,
        *,
        bases: tuple[str, ...],
        steps: int | None = None,
        automatic: bool = True,
        optimizer_ops: bool = False,
        capture: tuple[SiteKey, ...] = (),
        poison: bool = False,
        on_progress: Callable[[int, int], None] = lambda steps, events: None,
    ) -> None:
        self.sink = sink
        self.active = False
        self.step = 0
        self.optimizer_ops = optimizer_ops
        self.operators: dict[Any, Operator] = {}
        self.names = ModuleNames()
        self.locator = Locator(bases, sink.code)
        self.memory = UnwrittenMemory(poison=poison)
        # What an optimizer now works on, by address: a parameter's module path and name.
        self.optimized: dict[int, tuple[weakref.ref[torch.Tensor], tuple[str, str]]] = {}
        self.wanted = {
            (key.step, key.phase, key.module, key.op, key.call_index, key.thread) for key in capture
        }
        self.unobserved: Counter[str] = Counter()
        self._on_progress = on_progress
        self._indices = itertools.count()
        self._events = 0
        self._sites: dict[tuple[str, str], int] = {}
        self._specs: dict[tuple[Any, ...], int] = {}
        self._local = threading.local()
        self._modes: list[OpMode] = []
        self._generators = Generators(self)
        self._steps = Steps(self, limit=steps, automatic=automatic)
        self._loaders = Loaders(self)
        self._threads = Threads(self)

    # -- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin: enter the mode in this thread, hook modules, optimizers, loaders, generators."""
        self.active = True
        unseen_by_dynamo(OpMode.__torch_dispatch__)
        self.enter_thread(0, 0)
        self._steps.install()
        self._loaders.install()
        self._threads.install()
        self._generators.install()
        os.register_at_fork(after_in_child=self._abandon)
        self.generator_states()

    def stop(self) -> None:
        """End: record generator states a last time, unhook everything, flush. Idempotent."""
        if not self.active:
            return
        self._weigh_all()
        self.generator_states()
        self.active = False
        self._generators.uninstall()
        self._threads.uninstall()
        self._loaders.uninstall()
        self._steps.uninstall()
        self.leave_thread()
        self.sink.flush()
        self._on_progress(self.step, self._events)

    @property
    def events(self) -> int:
        """Events recorded so far."""
        return self._events

    @property
    def steps(self) -> int:
        """Steps that have ended, and one more if the last one has begun."""
        return self._steps.ended()

    @property
    def stopped_at_limit(self) -> bool:
        """True once the program was told to end after its last step."""
        return self._steps.limit_reached

    def numpy_imported(self) -> None:
        """Hook NumPy's generators, imported after torch."""
        self._generators.install_numpy()

    def enter_thread(self, number: int, step: int) -> None:
        """Record the calling thread too, as thread `number`, begun in `step`."""
        mode = OpMode(self, number, step)
        self._local.mode = mode
        self._modes.append(mode)
        mode.__enter__()  # type: ignore[no-untyped-call]

    def leave_thread(self) -> None:
        """Stop recording the calling thread."""
        mode = getattr(self._local, "mode", None)
        if mode is None:
            return
        self._local.mode = None
        self._modes.remove(mode)
        # A program stopped inside a mode of its own has that one on top; ours then stays, inert.
        if torch.utils._python_dispatch._get_current_dispatch_mode() is mode:
            mode.__exit__(None, None, None)  # type: ignore[union-attr]

    def mode(self) -> OpMode | None:
        """The calling thread's mode; on an autograd device thread, that of its caller."""
        mode: OpMode | None = getattr(self._local, "mode", None)
        if mode is None:
            current = torch.utils._python_dispatch._get_current_dispatch_mode()
            mode = current if isinstance(current, OpMode) else None
        return mode

    def _abandon(self) -> None:
        # In a forked child the trace belongs to the parent; the child runs unobserved.
        self.active = False
        self.sink.discard_connection()

    # -- events ---------------------------------------------------------------------------------

    def next_index(self) -> int:
        """The next event's place in the run; events of all threads share one order."""
        return next(self._indices)

    def site(self, module: str, op: str) -> int:
        """Number of a (module path, op) pair."""
        try:
            return self._sites[module, op]
        except KeyError:
            number = self._sites[module, op] = self.sink.site(module, op)
            return number

    def add_event(self, row: Row) -> None:
        """Take an event row; write out every few thousand."""
        self.sink.events.append(row)
        self._events += 1
        if self._events % _FLUSH_EVERY == 0:
            self.sink.flush()
            self._on_progress(self.step, self._events)

    def add_tensor(
        self,
        index: int,
        position: int,
        tensor: torch.Tensor,
        read: bool,
        keep: bool,
        whole: bool,
        name: str | None = None,
    ) -> None:
        """Record one output of event `index`; fingerprint it if `read`, keep its bits if `keep`.

        `whole` says that the operator wrote all of it.
        """
        self.sink.outputs.append(self._row(index, position, tensor, read, name))
        if whole and self.memory.unwritten and tensor.layout is torch.strided:
            self.memory.wrote(tensor)
        if keep:
            self._keep(index, 1, position, tensor)

    def add(
        self,
        kind: int,
        phase: int,
        op: str,
        outputs: list[tuple[str | None, torch.Tensor | bytes]],
        *,
        module: str = "",
        code: int | None = None,
    ) -> int | None:
        """Record an event that is no operator: tensors or ready digests, named, in order.

        Returns its index; None where nothing is recorded.
        """
        mode = self.mode()
        if not self.active or mode is None:
            return None
        index = self.next_index()
        site = self.site(module, op)
        place = site * 8 + phase
        count = mode.counts.get(place, 0)
        mode.counts[place] = count + 1
        keep = bool(self.wanted) and self.wants(phase, module, op, count, mode)
        flags = 0
        with paused():
            for position, (name, value) in enumerate(outputs):
                if isinstance(value, bytes):
                    spec = self._spec("python", (), "cpu")
                    self.sink.outputs.append((index, position, spec, value, name))
                    continue
                # A cache of `torch.empty` may never be written, nor read, to its end.
                read = kind != KIND_PARAM or self._written(value)
                flags |= 0 if read else TAINTED
                self.sink.outputs.append(self._row(index, position, value, read, name))
                if keep:
                    self._keep(index, 1, position, value)
        self.add_event((index, kind, mode.step, phase, mode.thread, site, count, code, None, flags))
        return index

    def _written(self, value: torch.Tensor) -> bool:
        return isinstance(value, torch.nn.Parameter) or not self.memory.holds(value)

    def batch(
        self, op: str, outputs: list[tuple[str | None, torch.Tensor | bytes]], code: int | None
    ) -> None:
        """Record what came in from outside."""
        if outputs:
            self.add(KIND_BATCH, DATA, op, outputs, code=code)

    def parameter(self, module: str, name: str, tensor: torch.Tensor, code: int | None) -> None:
        """Record a parameter's or buffer's value."""
        index = self.add(
            KIND_PARAM, WEIGHTS, f"param:{name}", [(name, tensor)], module=module, code=code
        )
        if index is not None:
            self.names.recorded(tensor, index)

    def weigh(self, root: torch.nn.Module) -> None:
        """Record all parameters and buffers of a model, naming its modules."""
        self.names.enter_root(root)
        for module, name, tensor in self.names.tensors(root):
            self.parameter(module, name, tensor, None)

    def _weigh_all(self) -> None:
        """Record what the models that are still there end with: `.numpy()` writes show here."""
        mode = self.mode()
        if mode is not None and mode.thread == 0:
            # Which models are still there must not depend on when garbage was last collected.
            gc.collect()
            for root in self.names.roots():
                self.weigh(root)

    def generator(self, op: str, digest: bytes, code: int | None = None) -> None:
        """Record a generator's state, or the seed it was given."""
        self.add(KIND_RNG, RNG, op, [(None, digest)], code=code)

    def generator_states(self) -> None:
        """Record the states of the process's global generators."""
        self._generators.states()

    def end_step(self) -> None:
        """Close the calling thread's step: generator states, fresh call counts, progress."""
        self.generator_states()
        self.step += 1
        mode = self.mode()
        if mode is not None:
            mode.new_step()
        self._on_progress(self.step, self._events)

    def bound_elsewhere(self, asking: OpMode, node: Any, number: int) -> Bound | None:
        """A node's forward event where several threads make nodes.

        Their numbers overlap, so it is the one whose operator has the node's name; else the asking
        thread's own, or any.
        """
        others = [mode for mode in self._modes if mode is not asking]
        found = [
            bound
            for mode in (asking, *others)
            for causes in mode.all_causes()
            if (bound := causes.of(node, number)) is not None
        ]
        name = node.name()
        fitting = (bound for bound in found if fits(name, bound[2].name))
        return next(fitting, found[0] if found else None)

    # -- the zoom -------------------------------------------------------------------------------

    def wants(self, phase: int, module: str, op: str, count: int, mode: OpMode) -> bool:
        """True if this event's tensors were asked for."""
        return (mode.step, PHASES[phase], module, op, count, mode.thread) in self.wanted

    def take_inputs(self, index: int, operator: Operator, args: Any, kwargs: Any) -> bool:
        """Fingerprint an operator's arguments before it runs: tensors one by one, numbers together.

        What it overwrites unread is no input. False for an operator that brings memory in: what
        it is given is what it returns.
        """
        if operator.outside:
            return False
        read = operator.read(args, kwargs)
        position = -1
        for position, tensor in enumerate(tensors_in(read)):
            self.sink.inputs.append(self._row(index, position, tensor, True, None))
            self._keep(index, 0, position, tensor)
        spec = self._spec("python", (), "cpu")
        digest = digest_of(_plain_arguments(read))
        self.sink.inputs.append((index, position + 1, spec, digest, "arguments"))
        return True

    def _keep(self, index: int, role: int, position: int, tensor: torch.Tensor) -> None:
        if tensor.layout is not torch.strided or tensor.numel() == 0 or tensor.is_meta:
            return
        if tensor.numel() * tensor.element_size() > _PAYLOAD_LIMIT:
            self.unobserved["capture over 2 GiB"] += 1
            return
        flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        nbytes = flat.numel() * flat.element_size()
        view = memoryview((ctypes.c_ubyte * nbytes).from_address(flat.data_ptr())).cast("B")
        self.sink.payload(index, role, position, view)

    # -- tensors --------------------------------------------------------------------------------

    def _row(
        self, index: int, position: int, tensor: torch.Tensor, read: bool, name: str | None
    ) -> Row:
        digest = None
        if read:
            try:
                plain = type(tensor) in _PLAIN
                digest = engine.tensor_digest(tensor) if plain else self._digest(tensor)
            except UnsupportedTensorError:
                digest = self._digest(tensor)
        try:
            key = (tensor.dtype, tensor.shape, tensor.device)
            spec = self._specs.get(key)
            if spec is None:
                spec = self._specs[key] = self._spec_of(tensor, tuple(map(int, tensor.shape)))
        except (AttributeError, RuntimeError, TypeError):
            # The shape of a nested tensor is no list of numbers.
            spec = self._spec_of(tensor, ())
        return (index, position, spec, digest, name)

    def _digest(self, tensor: torch.Tensor) -> bytes | None:
        """The digest of a tensor's bits, or of those it is made of; None if it has none to read."""
        with paused():
            try:
                return parts.digest(tensor)
            except UnsupportedTensorError as error:
                if parts.has_bits(tensor):
                    self.unobserved[str(error)] += 1
                return None

    def _spec_of(self, tensor: torch.Tensor, shape: tuple[int, ...]) -> int:
        return self._spec(str(tensor.dtype).removeprefix("torch."), shape, str(tensor.device))

    def _spec(self, dtype: str, shape: tuple[int, ...], device: str) -> int:
        return self.sink.spec(dtype, shape, device)


def _plain_arguments(value: Any) -> Any:
    """An operator's arguments that are no tensors, in their places; objects by their type alone."""
    if isinstance(value, list | tuple):
        return [_plain_arguments(item) for item in value]
    if isinstance(value, dict):
        return [(name, _plain_arguments(value[name])) for name in sorted(value)]
    if isinstance(value, str | bytes | bool | int | float | complex | torch.dtype | torch.device):
        return value
    return type(value).__name__

"""A device that runs PTX: all threads of a launch, step by step, each step for many at once.

Of threads that have parted, those at the least instruction go first, so that they meet again as
early as they can. `order` says how a launch's warps come after one another where nothing else does:
all together, or each as far as it gets before the next begins.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

import numpy as np

from .access import memory_instruction
from .body import Body, Read, Run, Threads, Write
from .memory import Arena, Array, Memory, Who
from .parser import Both, Instruction, Module, PtxError, Symbol, Vector

Order = Literal["together", "forward", "backward"]
_WARP = 32
_MOST_STEPS = 5_000_000
_GAP = 64


class Step:
    """An instruction made ready: what it does, or which way of control it is."""

    __slots__ = ("control", "guard", "instruction", "reads", "run", "target", "writes")

    def __init__(self, instruction: Instruction) -> None:
        self.instruction = instruction
        self.run: Run | None = None
        self.guard: Read | None = None
        self.control = ""
        self.target: Any = None
        self.reads: list[Read] = []
        self.writes: list[Write] = []


class Routine:
    """A function with its steps."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.function = machine.module.functions[name]
        if not self.function.code:
            raise PtxError(f"{name} has no code")
        self.body = Body(self.function, machine)
        self.steps = [self._step(machine, code) for code in self.function.code]
        self.executed = np.zeros(len(self.steps), np.int64)
        self.symbols = {name for code in self.function.code for name in code.symbols()}

    def _step(self, machine: Machine, instruction: Instruction) -> Step:
        step = Step(instruction)
        try:
            if instruction.guard is not None:
                step.guard = self.body.read(instruction.guard, "pred")
            if not self._control(step):
                step.run = memory_instruction(self.body, machine, instruction)
                step.run = step.run or self.body.plain(instruction)
        except PtxError as error:
            raise self.located(step, error) from None
        return step

    def located(self, step: Step, error: PtxError) -> PtxError:
        """An error with the instruction that it comes from."""
        code = step.instruction
        return PtxError(f"{self.function.name}, line {code.line}, {code.opcode}: {error}")

    def _control(self, step: Step) -> bool:
        opcode, operands = step.instruction.opcode, step.instruction.operands
        step.control = step.instruction.parts[0]
        if opcode in {"bra", "bra.uni"} and isinstance(operands[0], Symbol):
            step.target = self.function.labels[operands[0].name]
        elif opcode in {"ret", "exit"}:
            step.control = "ret"
        elif opcode in {"bar.sync", "barrier.sync"}:
            if step.guard is not None or getattr(operands[0], "bits", None) != 0 or operands[1:]:
                raise PtxError("not the barrier of a whole block")
            step.control = "bar"
        elif opcode == "call.uni":
            results, name, arguments = operands
            assert isinstance(results, Vector)
            assert isinstance(name, Symbol)
            assert isinstance(arguments, Vector)
            step.target = name.name, results.parts, arguments.parts
        elif step.instruction.parts[:2] == ("shfl", "sync"):
            self._shuffle(step)
        else:
            step.control = ""
            return False
        return True

    def _shuffle(self, step: Step) -> None:
        mode, kind = step.instruction.parts[2:]
        if mode not in {"up", "down", "bfly", "idx"} or kind != "b32" or step.guard is not None:
            raise PtxError("an unknown instruction")
        to, *others = step.instruction.operands
        step.target = mode
        first = to.first if isinstance(to, Both) else to
        step.writes = [self.body.write(first, "b32")]
        if isinstance(to, Both):
            step.writes.append(self.body.write(to.second, "pred"))
        step.reads = [self.body.read(operand, "b32") for operand in others]


def span(numbers: Array) -> Threads:
    """The same threads, as a range where they are one."""
    first, last = int(numbers[0]), int(numbers[-1])
    return slice(first, last + 1) if last - first + 1 == len(numbers) else numbers


def shuffled(mode: str, lanes: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """From which lane each reads, and whether that is in range: as the manual computes it."""
    lane, wanted, bound, segment = (
        x.astype(np.int64) for x in (lanes, b & 31, c & 31, c >> 8 & 31)
    )
    most = lane & segment | bound & ~segment
    if mode == "up":
        source = lane - wanted
        valid = source >= most
    else:
        least = lane & segment
        source = {"down": lane + wanted, "bfly": lane ^ wanted, "idx": least | wanted & ~segment}[
            mode
        ]
        valid = source <= most
    return np.where(valid, source, lane).astype(np.uint32), valid


class Group:
    """Threads that run together until each waits or has ended."""

    def __init__(self, threads: Threads) -> None:
        self.pending: dict[int, Threads] = {0: threads}
        self.waiting: dict[int, Threads] = {}


class Machine:
    """Runs the kernels of one module."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.routines: dict[str, Routine] = {}

    def executed(self) -> Counter[str]:
        """How often threads have executed each instruction since the machine was made."""
        found: Counter[str] = Counter()
        for routine in self.routines.values():
            for step, count in zip(routine.steps, routine.executed.tolist(), strict=True):
                found[step.instruction.opcode] += count
        return found

    def launch(
        self,
        name: str,
        blocks: int,
        threads: int,
        arguments: list[bytes],
        memory: Arena,
        order: Order = "together",
    ) -> None:
        """Runs a kernel on a device's memory to its end."""
        self.memory = memory
        memory.begin()
        entry = self._routine(name)
        most = entry.function.threads
        if not entry.function.entry or (most is not None and threads > most) or threads % _WARP:
            raise PtxError(f"{name} in blocks of {threads} threads")
        self.count, self.block_threads = blocks * threads, threads
        self.blocks = blocks
        self.numbers = np.arange(self.count)
        self.passed = np.zeros(blocks, np.int64)
        self.left = _MOST_STEPS
        self._lay_out(entry, arguments)
        entry.body.reset(self.count)
        warps = range(0, self.count, _WARP)
        groups = [Group(slice(0, self.count))]
        if order != "together":
            groups = [Group(slice(at, at + _WARP)) for at in warps]
        with np.errstate(all="ignore"):
            while True:
                for group in groups[:: -1 if order == "backward" else 1]:
                    self._advance(entry, group)
                if not any(group.waiting for group in groups):
                    return
                self._pass_barriers(entry, groups)

    def _routine(self, name: str) -> Routine:
        if name not in self.module.functions:
            raise PtxError(f"there is no function {name}")
        if name not in self.routines:
            self.routines[name] = Routine(self, name)
        return self.routines[name]

    def _lay_out(self, entry: Routine, arguments: list[bytes]) -> None:
        """Parameters and shared memory, with gaps between variables."""
        self.places: dict[str, int] = {}
        size = 0
        for parameter, given in zip(entry.function.parameters, arguments, strict=True):
            if parameter.size != len(given):
                raise PtxError(f"{len(given)} bytes for {parameter.name}: {parameter.size}")
            size = -(-size // parameter.align) * parameter.align
            self.places[parameter.name] = size
            size += parameter.size
        self.parameters = Memory("param", size)
        for parameter, given in zip(entry.function.parameters, arguments, strict=True):
            at = slice(self.places[parameter.name], self.places[parameter.name] + parameter.size)
            self.parameters.bytes[at] = np.frombuffer(given, np.uint8)
            self.parameters.readable[at] = 0xFF
        size = _GAP
        variables = [v for v in self.module.shared.values() if v.name in entry.symbols]
        for variable in variables:
            size = -(-size // max(variable.align, 16)) * max(variable.align, 16)
            self.places[variable.name] = size
            size += variable.size + _GAP
        self.shared = Memory("shared", size, self.blocks, watched=True)
        rows = self.shared.writable.reshape(self.blocks, -1)
        for variable in variables:
            at = self.places[variable.name]
            rows[:, at : at + variable.size] = 0xFF

    def special(self, name: str, at: Threads) -> Array:
        """What a register such as %tid.x holds."""
        numbers = self.numbers[at]
        if name == "%tid.x":
            return (numbers % self.block_threads).astype(np.uint32)
        if name == "%ctaid.x":
            return (numbers // self.block_threads).astype(np.uint32)
        if name == "%ntid.x":
            return np.full(1, self.block_threads, np.uint32)
        if name == "%nctaid.x":
            return np.full(1, self.blocks, np.uint32)
        if name == "%laneid":
            return (numbers % _WARP).astype(np.uint32)
        raise PtxError(f"{name} is not known")

    def address(self, name: str) -> int:
        """Where a variable is in its state space."""
        if name not in self.places:
            raise PtxError(f"{name} is not known")
        return self.places[name]

    def who(self, at: Threads) -> Who:
        """The threads themselves."""
        threads = self.numbers[at]
        blocks = threads // self.block_threads
        return Who(threads, blocks, self.passed[blocks], self.block_threads)

    def space(self, name: str, at: Threads) -> tuple[Memory, Any]:
        """A state space, and the row of each thread in it."""
        if name == "shared":
            return self.shared, self.numbers[at] // self.block_threads
        return (self.parameters if name == "param" else self.memory), 0

    def _advance(self, routine: Routine, group: Group) -> None:
        """Runs a group's threads until all of them wait or have ended."""
        pending, steps, executed = group.pending, routine.steps, routine.executed
        while pending:
            pc = min(pending)
            at = pending.pop(pc)
            while at is not None:
                if pc in pending:
                    at = self._union(at, pending.pop(pc))
                step = steps[pc]
                self.left -= 1
                if self.left < 0:
                    raise PtxError(f"{routine.function.name} does not end")
                executed[pc] += at.stop - at.start if isinstance(at, slice) else len(at)
                try:
                    at = self._execute(routine, group, step, pc, at)
                except PtxError as error:
                    raise routine.located(step, error) from None
                pc += 1

    def _execute(
        self, routine: Routine, group: Group, step: Step, pc: int, at: Threads
    ) -> Threads | None:
        """Runs a step; those threads that go on to the next one at once."""
        acting: Threads | None = at
        rest: Threads | None = None
        if step.guard is not None:
            acting, rest = self._divided(at, step.guard(at))
        if step.run is not None:
            if acting is not None:
                step.run(acting)
            return at
        if acting is None:
            return at
        if step.control == "call":
            self._call(routine, step, acting)
            return at
        if step.control == "shfl":
            return self._shuffle(group, step, pc, acting)
        if step.control == "bar":
            group.waiting[pc] = self._with(group.waiting, pc, acting)
            return None
        if step.control == "bra":
            group.pending[step.target] = self._with(group.pending, step.target, acting)
        if rest is not None:
            group.pending[pc + 1] = self._with(group.pending, pc + 1, rest)
        return None

    def _divided(self, at: Threads, mask: Array) -> tuple[Threads | None, Threads | None]:
        if mask.all():
            return at, None
        if not mask.any():
            return None, at
        numbers = self.numbers[at]
        return span(numbers[mask]), span(numbers[~mask])

    def _union(self, some: Threads, others: Threads) -> Threads:
        return span(np.sort(np.concatenate([self.numbers[some], self.numbers[others]])))

    def _with(self, at_each: dict[int, Threads], pc: int, more: Threads) -> Threads:
        return self._union(at_each[pc], more) if pc in at_each else more

    def _call(self, caller: Routine, step: Step, at: Threads) -> None:
        name, results, arguments = step.target
        callee = self._routine(name)
        callee.body.reset(self.count)
        function = callee.function
        for variables, given in ((function.results, results), (function.parameters, arguments)):
            for variable, symbol in zip(variables, given, strict=True):
                memory = caller.body.variables[symbol.name]
                if memory.size != variable.size:
                    raise PtxError(f"{memory.size} bytes for {variable.name}")
                callee.body.variables[variable.name] = memory
        group = Group(at)
        self._advance(callee, group)
        if group.waiting:
            raise PtxError(f"{name}: not all of its threads go on together")

    def _shuffle(self, group: Group, step: Step, pc: int, at: Threads) -> Threads | None:
        """Warps of which all members are here exchange; the others' threads wait for theirs."""
        if pc in group.waiting:
            at = self._union(at, group.waiting.pop(pc))
        numbers = self.numbers[at]
        members = np.broadcast_to(step.reads[-1](at), numbers.shape)
        warps, lanes = numbers // _WARP, (numbers % _WARP).astype(np.uint32)
        here = np.zeros(self.count // _WARP, np.uint32)
        np.bitwise_or.at(here, warps, np.uint32(1) << lanes)
        asked = np.zeros_like(here)
        asked[warps] = members
        if (asked[warps] != members).any() or not (members >> lanes & 1).all():
            raise PtxError("threads of a warp name different members, or not themselves")
        complete = (members & ~here[warps]) == 0
        if not complete.all():
            group.waiting[pc] = span(numbers[~complete])
            if not complete.any():
                return None
        numbers, warps, lanes = numbers[complete], warps[complete], lanes[complete]
        at = span(numbers)
        value, chosen, clamp = (read(at) for read in step.reads[:3])
        source, valid = shuffled(step.target, lanes, chosen, clamp)
        if not (members[complete] >> source & 1).all():
            raise PtxError("a value of a thread that is no member")
        values = np.zeros(self.count, np.uint32)
        values[numbers] = value
        step.writes[0](at, values[warps * _WARP + source])
        for write in step.writes[1:]:
            write(at, valid)
        return at

    def _pass_barriers(self, entry: Routine, groups: list[Group]) -> None:
        """Lets blocks go on all of whose threads wait at one barrier."""
        passed = False
        for pc in sorted({pc for group in groups for pc in group.waiting}):
            if entry.steps[pc].control != "bar":
                continue
            waiting = [self.numbers[g.waiting[pc]] for g in groups if pc in g.waiting]
            blocks = np.concatenate(waiting) // self.block_threads
            full = np.bincount(blocks, minlength=self.blocks) == self.block_threads
            for group in groups:
                if pc not in group.waiting or not full.any():
                    continue
                numbers = self.numbers[group.waiting.pop(pc)]
                goes = full[numbers // self.block_threads]
                if goes.any():
                    group.pending[pc + 1] = span(numbers[goes])
                if not goes.all():
                    group.waiting[pc] = span(numbers[~goes])
            self.passed[full] += 1
            passed = passed or bool(full.any())
        if not passed:
            pc, step = next((pc, entry.steps[pc]) for g in groups for pc in g.waiting)
            raise entry.located(step, PtxError("threads wait for others that never come"))

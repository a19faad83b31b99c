"""Where faults are put, and what the right answer is: drawn from what a watched program does.

Nothing here comes from repro-audit. A program is run under `programs/watching.py`; of the calls of
kernels that it made, some are drawn, and the fault is planted by the number of the call. Where a
fault is in no operator (a sample, an order, a number drawn unseen), the program is watched again
with it, and the answer is the first line of the two logs that differs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.planted import preloaded

PROGRAM = Path(__file__).resolve().parent / "programs" / "train.py"
KINDS = ("bit", "swap", "zero")
ARCHITECTURES = (
    "mlp", "cnn", "resnet", "lstm", "gru", "encoder", "gpt", "vit", "unet", "vae", "experts",
    "graph", "workers",
)  # fmt: skip
# Draw from a generator that is not torch's, and use it: architecture and generator.
AUGMENTED = {"resnet": "numpy", "vit": "python"}
BATCH, STEPS, SAMPLES = 8, 4, 16
# What a site is told by, in a log and in a report.
SITE = ("step", "phase", "module", "op", "call_index")
Line = dict[str, Any]


@dataclass(frozen=True)
class Placement:
    """A fault and the right answer: `site` has the fields SITE and `kind`.

    `cause` is a class that must be found, `output` the tensor that errs, as the log has it.
    """

    name: str
    architecture: str
    plant: dict[str, Any]
    site: dict[str, Any]
    cause: str | None = None
    output: dict[str, Any] | None = None
    level: str = "ops"


@dataclass
class Program:
    """One of the architectures' programs, watched."""

    architecture: str
    directory: Path
    log: list[Line] = field(init=False)
    watched_calls: dict[str, int] = field(init=False)
    calls: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        # The first time tells which kernels there are, the others count them.
        self.watched({})
        self.log = self.watched({})
        self.watched_calls = self._calls()
        self.watched({}, PLANT_ONLY_COUNTED="yes")
        self.calls = self._calls()

    def _calls(self) -> dict[str, int]:
        calls: dict[str, int] = json.loads(self._kernels.read_text())
        return calls

    @property
    def _kernels(self) -> Path:
        return self.directory / f"{self.architecture}.kernels.json"

    def watched(self, plant: dict[str, Any], **env: str) -> list[Line]:
        """What the program does with a fault that acts."""
        log = self.directory / f"{self.architecture}.log.json"
        out, err = (self.directory / f"{self.architecture}.{end}" for end in ("out", "err"))
        code = preloaded.program(
            [str(PROGRAM), self.architecture],
            cwd=self.directory,
            env={
                "PLANT": json.dumps(plant),
                "PLANT_LOG": str(log),
                "PLANT_KERNELS": str(self._kernels),
                **env,
            },
            out=out,
            err=err,
        )
        if code != 0:
            raise RuntimeError(f"{self.architecture} under watch, {plant}: {err.read_text()}")
        lines: list[Line] = json.loads(log.read_text())
        return lines

    def site(self, line: Line) -> dict[str, Any]:
        """The answer where a line's operator gives another value."""
        return {**{name: line[name] for name in SITE}, "kind": "value"}

    def surfaces(self, plant: dict[str, Any], step: int) -> bool:
        """Whether a fault in a step changes what that step leaves in the parameters.

        Many do not: a bit of a moment rounds away, a zero of either sign adds the same.
        """
        return _left(self.log, step) != _left(self.watched(plant), step)

    def counted_alike(self, kernel: str) -> bool:
        """Whether a kernel is called as often where no operator is looked at.

        Autograd adds up gradients in place where nobody else holds them, which a mode does.
        """
        return self.watched_calls[kernel] == self.calls[kernel]

    def first_changed(self, plant: dict[str, Any]) -> dict[str, Any] | None:
        """The answer where a fault is in no operator; None where it changes nothing."""
        for mine, other in zip(self.log, self.watched(plant), strict=False):
            if [mine[name] for name in SITE] != [other[name] for name in SITE]:
                return {**self.site(other), "kind": "structural"}
            if mine["outputs"] != other["outputs"]:
                return self.site(mine)
        return None


def _left(log: list[Line], step: int) -> dict[str, str]:
    """What is last written to each parameter in a step."""
    return {
        output["of"]: output["sha256"]
        for line in log
        if line["step"] == step and line["phase"] == "optimizer"
        for output in line["outputs"]
        if output["parameter"]
    }


def placements(program: Program, seed: int = 0) -> list[Placement]:
    """All placements of one architecture: the same ones for the same seed and torch."""
    draw = random.Random(f"{seed} {program.architecture}")
    found = [
        *_kernels(program, draw, _PHASES),
        *_loader(program, draw),
        *_generators(program, draw),
    ]
    return [_placed(program, number, each) for number, each in enumerate(found)]


def sample(program: Program, seed: int = 0) -> list[Placement]:
    """A few placements, of each phase."""
    draw = random.Random(f"{seed} {program.architecture}")
    wanted = [("forward", "bit"), ("backward", "swap"), ("backward", "zero"), ("optimizer", "bit")]
    found = [
        *_kernels(program, draw, wanted),
        *islice(_loader(program, draw), 1),
        *islice(_generators(program, draw), 2),
    ]
    return [_placed(program, number, each) for number, each in enumerate(found)]


def _placed(program: Program, number: int, found: Found) -> Placement:
    name, plant, site, cause, output = found
    # Of those that a module or a parameter shows, about half are found by way of the modules.
    shown = (
        plant["where"] == "kernel"
        and number % 2 == 1
        and program.counted_alike(plant["op"])
        and program.surfaces(plant, site["step"])
    )
    level = "modules" if shown else "ops"
    called = f"{program.architecture} {number:02} {name}"
    return Placement(called, program.architecture, plant, site, cause, output, level)


Found = tuple[str, dict[str, Any], dict[str, Any], str | None, dict[str, Any] | None]
_PHASES = [(phase, kind) for phase in ("forward", "backward") for kind in KINDS * 3]
_PHASES += [("optimizer", kind) for kind in ("bit", "swap", "zero", "bit", "swap")]
_PHASES += [("weights", "bit"), ("data", "bit"), ("data", "swap")]
# Faults in an optimizer's state that are tried before one is found that a parameter shows.
_TRIES = 12


def _kernels(
    program: Program, draw: random.Random, wanted: list[tuple[str, str]]
) -> Iterator[Found]:
    """Calls of kernels, of phases and kinds of fault."""
    taken: set[tuple[str, int, int]] = set()
    for phase, kind in wanted:
        for _ in range(_TRIES):
            found = _kernel(program, draw, phase, kind, taken)
            if found is None:
                break
            _, plant, site, _, _ = found
            # The operators of an optimizer's step are looked at where a parameter differs.
            if phase != "optimizer" or program.surfaces(plant, site["step"]):
                yield found
                break


def rounded_away(program: Program, seed: int = 0) -> list[Placement]:
    """Faults in an optimizer's step that leave the parameters of that step as they were."""
    draw = random.Random(f"{seed} {program.architecture} rounded away")
    taken: set[tuple[str, int, int]] = set()
    placed = []
    for kind in KINDS * 4:
        found = _kernel(program, draw, "optimizer", kind, taken)
        if found is not None and not program.surfaces(found[1], found[2]["step"]):
            name, plant, site, cause, output = found
            called = f"{program.architecture} {name}, rounded away"
            placed.append(Placement(called, program.architecture, plant, site, cause, output))
            if len(placed) == 2:
                break
    return placed


def _kernel(
    program: Program,
    draw: random.Random,
    phase: str,
    kind: str,
    taken: set[tuple[str, int, int]],
) -> Found | None:
    """A call of a phase that a kind of fault can be planted in; None where there is none left."""
    places = [
        (line, position)
        for line in program.log
        if line["phase"] == phase and line["call"] is not None
        for position, output in enumerate(line["outputs"])
        if kind in output["kinds"] and (line["kernel"], line["call"], position) not in taken
    ]
    if not places:
        return None
    # An operator first, then one of its calls: or the optimizer's would all be alike.
    op = draw.choice(sorted({line["op"] for line, _ in places}))
    line, position = draw.choice([place for place in places if place[0]["op"] == op])
    taken.add((line["kernel"], line["call"], position))
    plant = {
        "where": "kernel",
        "op": line["kernel"],
        "call": line["call"],
        "position": position,
        "kind": kind,
        "element": draw.randrange(1 << 16),
    }
    return f"{phase} {kind}", plant, program.site(line), None, line["outputs"][position]


def _loader(program: Program, draw: random.Random) -> Iterator[Found]:
    """Samples with another element, and samples in each other's place."""
    # Each worker counts what it fetches itself: the first one's first batch is the earliest.
    fetched = BATCH if program.architecture == "workers" else STEPS * BATCH
    for kind in KINDS:
        plant = {
            "where": "sample",
            "call": draw.randrange(fetched),
            "kind": kind,
            "element": draw.randrange(1 << 16),
        }
        yield from _by_watching(program, f"sample {kind}", plant, plant["call"] // BATCH, None)
    batch = draw.randrange(fetched // BATCH)
    plant = {"where": "order", "call": batch}
    yield from _by_watching(program, "samples swapped", plant, batch, "data-order")


def _by_watching(
    program: Program, name: str, plant: dict[str, Any], step: int, cause: str | None
) -> Iterator[Found]:
    """A fault in the data of a step: its site must be there."""
    site = program.first_changed(plant)
    if site is None:
        # No zero in this sample, or two samples alike.
        return
    assert (site["phase"], site["step"], site["kind"]) == ("data", step, "value"), (plant, site)
    yield name, plant, site, cause, None


def _generators(program: Program, draw: random.Random) -> Iterator[Found]:
    """Other seeds, and numbers drawn that the other run does not draw: seen, and unseen."""
    seeds = {"torch": ("torch.manual_seed", 0, 0)}
    if program.architecture in AUGMENTED:
        which = AUGMENTED[program.architecture]
        seeds[which] = ("random.seed" if which == "python" else "numpy.random.seed", 0, 0)
    if program.architecture == "vae":
        # It seeds twice in the first step, and once more in the third.
        seeds |= {"epoch7": ("torch.manual_seed", 0, 1), "epoch8": ("torch.manual_seed", 2, 0)}
    for which, (function, step, index) in seeds.items():
        values = (step, "rng", "", f"seed:{function}", index)
        site = {**dict(zip(SITE, values, strict=True)), "kind": "value"}
        yield f"seed {which}", {"where": "seed", "which": which}, site, "unseeded-rng", None

    step = draw.randrange(STEPS)
    site = program.first_changed({"where": "draw", "which": "torch", "call": step})
    assert site is not None
    assert (site["kind"], site["step"], site["op"]) == ("structural", step, "aten.rand.default")
    plant = {"where": "draw", "which": "torch", "call": step}
    yield "draw torch", plant, site, None, None

    if program.architecture in AUGMENTED:
        plant = {"where": "draw", "which": AUGMENTED[program.architecture], "call": 0}
        site = program.first_changed(plant)
        assert site is not None
        yield f"draw {plant['which']}", plant, site, "rng-drift", None

    last = max(at for at, line in enumerate(program.log) if line["random"])
    calls = [line for line in program.log[:last] if line["call"] is not None and line["step"] < 3]
    for _ in range(2):
        line = draw.choice(calls)
        plant = {"where": "after", "op": line["kernel"], "call": line["call"]}
        site = program.first_changed(plant)
        if site is not None:
            yield "drawn unseen", plant, site, "rng-drift", None

"""Fabricated audits of matrices: axes that change the bits, that do not, and cells that fail."""

from __future__ import annotations

from dataclasses import replace

from repro_audit.model import (
    Audit,
    Axis,
    AxisAnswer,
    Cell,
    Deviation,
    EventCounts,
    Gap,
    Matrix,
    Observed,
    Origin,
    Pass,
    RunInfo,
    SiteKey,
    TensorSpec,
)

SPEC = TensorSpec("float32", (8, 64), "cpu")


def _origin(module: str, op: str, phase: str = "forward", **changes: object) -> Origin:
    found = Origin(
        key=SiteKey(0, phase, module, op, 0),
        event=41,
        output=0,
        spec=SPEC,
        call_site="model.py:14",
        kind="value",
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def _gap(origin: Origin, rms: float) -> Gap:
    found = Deviation(512, 512, 300, 0, 3, 1.1, 4 * rms, rms, 0.0)
    return Gap(origin.key, 41, 0, "", SPEC, "model.py:14", found, 64, 4e-7, False)


NORM = _origin("norm", "aten.native_layer_norm.default")
UP = _origin("up", "aten.addmm.default")
ROOT = _origin("", "module:forward")
GRADIENT = _origin("emb", "aten.index_put.default", "backward")
MUL = _origin("", "aten.mul.Tensor", kind="structural", spec=None)

BASELINE = {"threads": "1", "isa": "default", "batch": "1", "compile": "eager"}
COUNTS = EventCounts(140, 120, 20)


def _cell(name: str, outcome: str, group: int | None = None, **changes: object) -> Cell:
    axis, _, value = name.partition("=")
    settings = {**BASELINE, axis: value} if value else BASELINE
    runs = (f"{name}-1", f"{name}-2")
    cell = Cell(name, settings, runs, outcome, group)  # type: ignore[arg-type]
    return replace(cell, **changes)  # type: ignore[arg-type]


def _differs(name: str, group: int, origin: Origin, rms: float, **changes: object) -> Cell:
    how = {"events": COUNTS, "origin": origin, "largest": _gap(origin, rms), **changes}
    return _cell(name, "differs", group, **how)


ROWS = EventCounts(61, 40, 21, incomparable=3)
GRAPH = EventCounts(30, 13, 17, unaligned=18)
CELLS = (
    _cell("baseline", "baseline", 0, step_seconds=0.0123),
    _cell("threads=2", "identical", 0, events=EventCounts(140, 140, 0), step_seconds=0.0074),
    _differs("isa=avx2", 1, NORM, 3e-7, step_seconds=0.0092),
    _differs("isa=avx512", 2, NORM, 4e-7, step_seconds=0.0089),
    _differs("batch=8", 3, UP, 5e-7, events=ROWS, step_seconds=0.031),
    _cell("compile=aot_eager", "identical", 0, events=replace(GRAPH, divergent=0)),
    _differs("compile=aot_eager_decomp_partition", 4, ROOT, 2e-7, events=GRAPH, step_seconds=0.01),
    _differs("compile=inductor", 4, ROOT, 2e-7, events=GRAPH, step_seconds=0.0041),
)
AXES = (
    Axis("threads", ("1", "2")),
    Axis("isa", ("default", "avx2", "avx512")),
    Axis("batch", ("1", "8")),
    Axis("compile", ("eager", "aot_eager", "aot_eager_decomp_partition", "inductor")),
)


def _answer(cell: Cell, against: str = "baseline") -> AxisAnswer:
    axis, _, value = cell.name.rpartition(" ")[2].partition("=")
    return AxisAnswer(axis, True, value, cell.name, against, cell.origin, cell.largest)


EVERY = Matrix(
    AXES,
    BASELINE,
    CELLS,
    (AxisAnswer("threads", False), _answer(CELLS[2]), _answer(CELLS[4]), _answer(CELLS[6])),
    grid=False,
)


def matrix_audits(divergent: Audit, hostile: str) -> dict[str, Audit]:
    """Each by its name."""
    audit = replace(
        divergent,
        command="matrix",
        target="model.py",
        runs=tuple(RunInfo(name, name, {"steps": 3}) for cell in CELLS for name in cell.runs),
        events=EventCounts(552, 441, 111, 54, 3),
        observed=Observed(16, 5, 5, 7),
        origin=CELLS[2].origin,
        cause=None,
        printed_identical=None,
        passes=(Pass("start", 1, 4.0), Pass("cells", 16, 61.0), Pass("timing", 8, 29.0)),
        directory=".repro-audit/0007-model",
        matrix=EVERY,
    )
    same = replace(
        audit, verdict="identical", origin=None, observed=Observed(4, 1, 0, 1), reason=None
    )
    one, two = (_alone(cell) for cell in CELLS[:2])
    threads = Matrix(
        AXES[:1], {"threads": "1"}, (one, two), (AxisAnswer("threads", False),), grid=False
    )
    batch = Matrix(
        (AXES[2],),
        {"batch": "1"},
        (
            replace(CELLS[0], settings={"batch": "1"}, step_seconds=None),
            Cell("batch=8", {"batch": "8"}, ("b-1",), "identical", 0, EventCounts(61, 61, 0)),
        ),
        (AxisAnswer("batch", False),),
        grid=False,
    )
    failed = _cell("threads=2", "failed", reason="train.py (cell-001-1) failed: RuntimeError: two")
    failing = replace(
        threads,
        cells=(one, replace(_alone(failed), runs=())),
        answers=(AxisAnswer("threads", None),),
    )
    varies = _cell("threads=2", "varies", events=COUNTS, origin=GRADIENT, step_seconds=1.7)
    varies = _alone(varies)
    varying = replace(threads, cells=(one, varies), answers=(_answer(varies),))
    unsteady = replace(
        threads,
        cells=(replace(one, outcome="varies", group=None, origin=GRADIENT), varies),
        answers=(AxisAnswer("threads", None),),
    )
    grid = _grid()
    nasty = {hostile: hostile}
    named = Cell(
        hostile, nasty, (hostile,), "differs", 1, COUNTS, UP, _gap(UP, 1e-7), reason=hostile
    )
    hostile_matrix = Matrix(
        (Axis(hostile, (hostile, hostile)),),
        nasty,
        (replace(CELLS[0], settings=nasty), named),
        (AxisAnswer(hostile, True, hostile, hostile, hostile, UP, _gap(UP, 1e-7)),),
        grid=False,
    )
    return {
        "matrix": audit,
        "matrix-same": replace(same, matrix=threads),
        "matrix-batch-invariant": replace(same, matrix=batch, observed=Observed(2, 1, 0, 1)),
        "matrix-failed": replace(
            same,
            verdict="inconclusive",
            matrix=failing,
            reason="1 of 2 cells gave no answer, there is nothing to compare",
        ),
        "matrix-varies": replace(audit, matrix=varying, observed=Observed(4, 2, 1, 1)),
        "matrix-unsteady": replace(audit, matrix=unsteady, observed=Observed(4, 2, 1, 1)),
        "matrix-grid": replace(audit, matrix=grid, observed=Observed(8, 3, 2, 3)),
        "matrix-hostile": replace(audit, matrix=hostile_matrix),
    }


def _alone(cell: Cell) -> Cell:
    """A cell of a matrix that varies threads alone."""
    return replace(cell, settings={"threads": cell.settings["threads"]})


def _grid() -> Matrix:
    axes = (Axis("deterministic", ("off", "on")), Axis("isa", ("default", "avx2")))

    def cell(name: str, outcome: str, group: int, on: str, isa: str, **changes: object) -> Cell:
        made = Cell(name, {"deterministic": on, "isa": isa}, (name,), outcome, group)  # type: ignore[arg-type]
        return replace(made, **changes)  # type: ignore[arg-type]

    told = {"events": COUNTS, "origin": NORM, "largest": _gap(NORM, 3e-7)}
    cells = (
        cell("baseline", "baseline", 0, "off", "default", step_seconds=0.0009),
        cell("isa=avx2", "differs", 1, "off", "avx2", step_seconds=0.0007, **told),
        cell("deterministic=on", "identical", 0, "on", "default", events=COUNTS, step_seconds=2.0),
        cell(
            "deterministic=on isa=avx2",
            "differs",
            2,
            "on",
            "avx2",
            step_seconds=0.0019,
            **{**told, "origin": MUL},
        ),
    )
    against = replace(_answer(cells[3], "isa=avx2"), axis="deterministic", value="on", largest=None)
    return Matrix(
        axes, {"deterministic": "off", "isa": "default"}, cells, (against, _answer(cells[1])), True
    )

"""The JSON report, schema `repro-audit/report/1` (see `schema/report-1.json`), both ways.

The same audit gives the same bytes. An integer beyond ±2^53 is written as a decimal string, a
float that is not finite as "NaN", "Infinity" or "-Infinity": JSON readers round the one and reject
the other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from repro_audit import __version__
from repro_audit.errors import InconclusiveError, UsageError
from repro_audit.model import (
    Audit,
    Cause,
    Confirmation,
    Cure,
    EventCounts,
    Explanation,
    Json,
    Matrix,
    Origin,
    Replay,
    Reproducer,
    RunInfo,
    Screening,
    SelfCheck,
    UlpDivergence,
)
from repro_audit.report.files import write_whole
from repro_audit.report.json_values import audit_from
from repro_audit.report.plain_values import to_plain

SCHEMA = "repro-audit/report/1"
SCHEMA_FILE = Path(__file__).with_name("schema") / "report-1.json"

_EXACT = 2**53
_AGAIN = "run the audit again"


def to_json(audit: Audit) -> str:
    """`audit` as an indented JSON document of ASCII characters, ending in a newline."""
    # ASCII: a hostile name must not reach a terminal as control or direction characters, and the
    # lone surrogates of an undecodable file name have no UTF-8 form.
    return json.dumps(exact(_audit(audit)), indent=2, allow_nan=False, ensure_ascii=True) + "\n"


def save(audit: Audit, path: Path) -> None:
    """Write `to_json(audit)` to `path`, replacing what is there. Raises OSError."""
    write_whole(to_json(audit), path)


def load(path: Path) -> Audit:
    """The audit in the report at `path`; `load` of a saved audit equals it.

    In manifests, which may hold anything, values come back as JSON has them: lists for tuples,
    strings for integers beyond 2^53. Raises UsageError where the file cannot be read, and
    InconclusiveError where it is no whole report or one of another version.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read the report {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        if _is_trace(path):
            raise UsageError(
                f"{path} is a trace, and no report; `repro-audit compare` compares two of them"
            ) from error
        raise InconclusiveError(f"{path} is not a JSON report: {error}; {_AGAIN}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        if isinstance(schema, str) and schema.startswith("repro-audit/report/"):
            raise InconclusiveError(
                f"{path} is a report of schema {schema!r}, and this repro-audit {__version__} "
                f"reads {SCHEMA!r}; use the release that wrote it"
            )
        raise InconclusiveError(f"{path} is not a report of repro-audit; {_AGAIN}")
    try:
        return audit_from(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InconclusiveError(
            f"{path} is not a whole report ({type(error).__name__}: {error}); {_AGAIN}"
        ) from error


def _is_trace(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(15) == b"SQLite format 3"


def _audit(audit: Audit) -> dict[str, Json]:
    return {
        "schema": SCHEMA,
        "tool": {"version": __version__, "engine": audit.engine},
        "command": audit.command,
        "words": list(audit.words),
        "target": audit.target,
        "mode": audit.mode,
        "directory": audit.directory,
        "verdict": audit.verdict,
        "reason": audit.reason,
        "runs": [_run(run) for run in audit.runs],
        "events": _events(audit.events),
        "observed": {
            "runs": audit.observed.runs,
            "distinct": audit.observed.distinct,
            "differing_pairs": audit.observed.differing_pairs,
            "pairs": audit.observed.pairs,
        },
        "first_divergence": _origin(audit.origin),
        "cause": _cause(audit.cause),
        "sightings": [
            {"first_divergence": _origin(sighting.origin), "pairs": sighting.pairs}
            for sighting in audit.sightings
        ],
        "printed_identical": audit.printed_identical,
        "confirmation": _confirmation(audit.confirmation),
        "self_check": _self_check(audit.self_check),
        "explanation": _explanation(audit.explanation),
        "reproducer": _reproducer(audit.reproducer),
        "start": to_plain(audit.start),
        "drift": to_plain(audit.drift),
        "own_errors": to_plain(audit.own),
        "overview": to_plain(audit.overview),
        "passes": [
            {
                "name": pass_.name,
                "runs": pass_.runs,
                "seconds": pass_.seconds,
                "lockstep": pass_.lockstep,
            }
            for pass_ in audit.passes
        ],
        "manifest_differences": [
            {"field": difference.field, "values": dict(difference.values)}
            for difference in audit.manifest_differences
        ],
        "warnings": [
            {"code": warning.code, "message": warning.message, "call_site": warning.call_site}
            for warning in audit.warnings
        ],
        "unseen": [{"what": unseen.what, "count": unseen.count} for unseen in audit.unseen],
        "matrix": _matrix(audit.matrix),
        "resumption": to_plain(audit.resumption),
        "screening": _screening(audit.screening),
    }


def _matrix(matrix: Matrix | None) -> Json:
    """A matrix field by field, but that an origin is called and written as everywhere."""
    if matrix is None:
        return None
    plain = to_plain(matrix)
    origins = [cell.origin for cell in matrix.cells]
    origins += [answer.origin for answer in matrix.answers]
    for written, origin in zip((*plain["cells"], *plain["answers"]), origins, strict=True):
        del written["origin"]
        written["first_divergence"] = _origin(origin)
    return plain


def _screening(screening: Screening | None) -> Json:
    """A screening field by field, but that an origin is called and written as everywhere."""
    if screening is None:
        return None
    plain = to_plain(screening)
    for written, device in zip(plain["devices"], screening.devices, strict=True):
        del written["origin"]
        written["first_divergence"] = _origin(device.origin)
    return plain


def _run(run: RunInfo) -> dict[str, Json]:
    return {
        "name": run.name,
        "trace": run.trace,
        "manifest": _sorted(run.manifest),
        "printed": run.printed,
        "seconds": run.seconds,
    }


def _events(events: EventCounts) -> dict[str, Json]:
    return {
        "compared": events.compared,
        "identical": events.identical,
        "divergent": events.divergent,
        "unaligned": events.unaligned,
        "incomparable": events.incomparable,
    }


def _origin(origin: Origin | None) -> dict[str, Json] | None:
    if origin is None:
        return None
    spec, caused_by = origin.spec, origin.caused_by
    return {
        "step": origin.key.step,
        "rank": origin.rank,
        "process": origin.key.process,
        "thread": _number(origin.key.thread),
        "thread_name": origin.key.thread,
        "phase": origin.key.phase,
        "module": origin.key.module,
        "call_index": origin.key.call_index,
        "op": origin.key.op,
        "event": origin.event,
        "output": origin.output,
        "output_name": origin.output_name,
        "dtype": spec.dtype if spec else None,
        "shape": list(spec.shape) if spec else None,
        "device": spec.device if spec else None,
        "call_site": origin.call_site,
        "called_from": origin.called_from,
        "source": origin.source,
        "kind": origin.kind,
        "other_op": origin.other_op,
        "recompute": origin.recompute,
        "backward_code": origin.backward_code,
        "caused_by": None
        if caused_by is None
        else {
            "op": caused_by.op,
            "module": caused_by.module,
            "call_site": caused_by.call_site,
            "called_from": caused_by.called_from,
        },
        "inputs_identical": origin.inputs_identical,
        "ulp": _ulp(origin.ulp, origin.ulp_runs),
        "ulp_runs": list(origin.ulp_runs),
    }


def _number(thread: str) -> int:
    """0 for the main thread, else that of the thread it started of which this one is, or comes."""
    first = thread.partition(".")[0]
    return int(first) if first.isdigit() else 0


def _ulp(ulp: UlpDivergence | None, runs: Sequence[str]) -> dict[str, Json] | None:
    return None if ulp is None else ulp_values(ulp) | {"from_runs": list(runs)}


def ulp_values(ulp: UlpDivergence) -> dict[str, Json]:
    """How far two tensors are apart, as all reports have it."""
    return {
        "dtype": ulp.dtype,
        "shape": list(ulp.shape),
        "numel": ulp.numel,
        "differing": ulp.differing,
        "unordered": ulp.unordered,
        "nan_payload": ulp.nan_payload,
        "signed_zero": ulp.signed_zero,
        "infinity": ulp.infinity,
        "sign_flips": ulp.sign_flips,
        "max_ulp": ulp.max_ulp,
        "mean_ulp": ulp.mean_ulp,
        "sum_ulp": ulp.sum_ulp,
        "max_absolute": ulp.max_absolute,
        "max_relative": ulp.max_relative,
        "max_index": ulp.max_index,
        "max_values": ulp.max_values,
        "first_index": ulp.first_index,
        "first_values": ulp.first_values,
        "less": ulp.less,
        "greater": ulp.greater,
        "histogram": list(ulp.histogram),
    }


def _cause(cause: Cause | None) -> dict[str, Json] | None:
    if cause is None:
        return None
    return {
        "class": cause.cls,
        "confidence": cause.confidence,
        "evidence": list(cause.evidence),
        "remedies": list(cause.remedies),
        "source": cause.source,
    }


def _confirmation(confirmation: Confirmation | None) -> dict[str, Json] | None:
    if confirmation is None:
        return None
    return {
        "run": _run(confirmation.run),
        "holds": confirmation.holds,
        "events": _events(confirmation.events),
        "first_divergence": _origin(confirmation.origin),
        "cause": _cause(confirmation.cause),
    }


def _self_check(check: SelfCheck | None) -> dict[str, Json] | None:
    if check is None:
        return None
    return {
        "compared": check.compared,
        "varying": list(check.varying),
        "differing": list(check.differing),
    }


def _explanation(explanation: Explanation | None) -> dict[str, Json] | None:
    if explanation is None:
        return None
    return {
        "replay": _replay(explanation.replay),
        "experiments": [
            {
                "pins": list(tried.pins),
                "said": tried.said,
                "on": tried.on,
                "n": tried.n,
                "differs": tried.differs,
                "reason": tried.reason,
            }
            for tried in explanation.experiments
        ],
        "cure": _cure(explanation.cure),
        "seconds": explanation.seconds,
    }


def _reproducer(reproducer: Reproducer | None) -> dict[str, Json] | None:
    if reproducer is None:
        return None
    return {"path": reproducer.path, "shows": reproducer.shows, "reason": reproducer.reason}


def _replay(replay: Replay | None) -> dict[str, Json] | None:
    if replay is None:
        return None
    return {
        "calls": replay.calls,
        "counts": list(replay.counts),
        "pairs": replay.pairs,
        "differing_pairs": replay.differing_pairs,
        "recorded": replay.recorded,
        "output": replay.output,
        "between": _ulp(replay.between, ()),
        "exact": [_ulp(figures, ()) for figures in replay.exact],
        "inexact": replay.inexact,
        "problem": replay.problem,
    }


def _cure(cure: Cure | None) -> dict[str, Json] | None:
    if cure is None:
        return None
    return {
        "pins": list(cure.pins),
        "remedies": list(cure.remedies),
        "runs": cure.runs,
        "identical": cure.identical,
        "slowdown": cure.slowdown,
        "remaining": _origin(cure.remaining),
    }


def _sorted(value: Json) -> Json:
    """`value` with the keys of all its mappings in order, since a manifest promises none."""
    if isinstance(value, Mapping):
        return {str(key): _sorted(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


def exact(value: Json) -> Json:
    """`value` with the numbers that JSON readers would get wrong as strings."""
    if isinstance(value, Mapping):
        return {str(key): exact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [exact(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) <= _EXACT else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value

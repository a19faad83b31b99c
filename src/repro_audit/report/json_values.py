"""The model's values from a JSON report, the inverse of what `json_report` writes.

Every function raises KeyError, TypeError or ValueError where the document is not one. Fields that
later releases of the same schema may add are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar, get_args

from repro_audit.model import (
    Audit,
    Axis,
    AxisAnswer,
    Cause,
    CauseClass,
    CausedBy,
    Cell,
    Confirmation,
    Cure,
    Drift,
    EventCounts,
    Experiment,
    Explanation,
    Json,
    ManifestDifference,
    Matrix,
    Observed,
    Origin,
    Overview,
    OwnErrors,
    Pass,
    Replay,
    Reproducer,
    Resumption,
    RunInfo,
    Screened,
    Screening,
    SelfCheck,
    Sighting,
    SiteKey,
    Start,
    TensorSpec,
    UlpDivergence,
    Unseen,
    Verdict,
    Warn,
)
from repro_audit.report.plain_values import from_plain

_T = TypeVar("_T")


def audit_from(document: Mapping[str, Json]) -> Audit:
    """The audit that a whole report holds."""
    verdict: Verdict = document["verdict"]
    if verdict not in get_args(Verdict):
        raise ValueError(f"unknown verdict {verdict!r}")
    observed = document["observed"]
    return Audit(
        command=_text(document["command"]),
        target=_text(document["target"]),
        mode=_text(document["mode"]),
        verdict=verdict,
        engine=_text(document["tool"]["engine"]),
        runs=tuple(_run(run) for run in document["runs"]),
        events=_events(document["events"]),
        observed=Observed(
            runs=_integer(observed["runs"]),
            distinct=_integer(observed["distinct"]),
            differing_pairs=_integer(observed["differing_pairs"]),
            pairs=_integer(observed["pairs"]),
        ),
        origin=_optional(_origin, document["first_divergence"]),
        cause=_optional(_cause, document["cause"]),
        sightings=tuple(
            Sighting(_origin(sighting["first_divergence"]), _integer(sighting["pairs"]))
            for sighting in document["sightings"]
        ),
        printed_identical=_optional(_truth, document["printed_identical"]),
        confirmation=_optional(_confirmation, document["confirmation"]),
        self_check=_optional(_self_check, document["self_check"]),
        reproducer=_optional(
            lambda known: Reproducer(known["path"], known["shows"], known["reason"]),
            document.get("reproducer"),
        ),
        explanation=_optional(_explanation, document.get("explanation")),
        start=_optional(lambda known: from_plain(Start, known), document.get("start")),
        drift=_optional(lambda known: from_plain(Drift, known), document.get("drift")),
        own=_optional(lambda known: from_plain(OwnErrors, known), document.get("own_errors")),
        overview=_optional(lambda known: from_plain(Overview, known), document.get("overview")),
        passes=tuple(
            Pass(pass_["name"], pass_["runs"], pass_["seconds"], pass_.get("lockstep", 0))
            for pass_ in document.get("passes", ())
        ),
        manifest_differences=tuple(
            ManifestDifference(_text(difference["field"]), _mapping(difference["values"]))
            for difference in document["manifest_differences"]
        ),
        warnings=tuple(
            Warn(
                _text(warning["code"]),
                _text(warning["message"]),
                _optional(_text, warning["call_site"]),
            )
            for warning in document["warnings"]
        ),
        unseen=tuple(
            Unseen(_text(unseen["what"]), _integer(unseen["count"]))
            for unseen in document.get("unseen", ())
        ),
        directory=_optional(_text, document["directory"]),
        reason=_optional(_text, document["reason"]),
        words=_texts(document.get("words", [])),
        matrix=_optional(_matrix, document.get("matrix")),
        resumption=_optional(
            lambda known: from_plain(Resumption, known), document.get("resumption")
        ),
        screening=_optional(_screening, document.get("screening")),
    )


def _with_origin(cls: type[_T], written: Mapping[str, Json]) -> _T:
    origin = _optional(_origin, written["first_divergence"])
    # Of one field the words are those of the report, all others have their own.
    return replace(from_plain(cls, {**written, "origin": None}), origin=origin)  # type: ignore[type-var]


def _matrix(matrix: Mapping[str, Json]) -> Matrix:
    return Matrix(
        axes=tuple(from_plain(Axis, axis) for axis in matrix["axes"]),
        baseline=_mapping(matrix["baseline"]),
        cells=tuple(_with_origin(Cell, cell) for cell in matrix["cells"]),
        answers=tuple(_with_origin(AxisAnswer, answer) for answer in matrix["answers"]),
        grid=_truth(matrix["grid"]),
    )


def _screening(screening: Mapping[str, Json]) -> Screening:
    devices = tuple(_with_origin(Screened, device) for device in screening["devices"])
    return Screening(devices, _integer(screening["rounds"]))


def _run(run: Mapping[str, Json]) -> RunInfo:
    return RunInfo(
        name=_text(run["name"]),
        trace=_text(run["trace"]),
        manifest=_mapping(run["manifest"]),
        printed=_optional(_text, run["printed"]),
        seconds=_optional(float, run["seconds"]),
    )


def _events(events: Mapping[str, Json]) -> EventCounts:
    return EventCounts(
        compared=_integer(events["compared"]),
        identical=_integer(events["identical"]),
        divergent=_integer(events["divergent"]),
        unaligned=_integer(events.get("unaligned", 0)),
        incomparable=_integer(events.get("incomparable", 0)),
    )


def _origin(origin: Mapping[str, Json]) -> Origin:
    kind = origin["kind"]
    if kind not in {"value", "structural"}:
        raise ValueError(f"unknown kind of divergence {kind!r}")
    dtype = _optional(_text, origin["dtype"])
    return Origin(
        key=SiteKey(
            step=_integer(origin["step"]),
            phase=_text(origin["phase"]),
            module=_text(origin["module"]),
            op=_text(origin["op"]),
            call_index=_integer(origin["call_index"]),
            thread=_text(origin["thread_name"]),
            process=_text(origin["process"]),
        ),
        event=_integer(origin["event"]),
        output=_optional(_integer, origin["output"]),
        spec=None
        if dtype is None
        else TensorSpec(dtype, _integers(origin["shape"]), _text(origin["device"])),
        call_site=_optional(_text, origin["call_site"]),
        kind=kind,
        caused_by=_optional(_caused_by, origin["caused_by"]),
        inputs_identical=_optional(_truth, origin["inputs_identical"]),
        ulp=_optional(_ulp, origin["ulp"]),
        ulp_runs=_texts(origin["ulp_runs"]),
        other_op=_optional(_text, origin["other_op"]),
        output_name=_text(origin["output_name"]),
        rank=_integer(origin["rank"]),
        recompute=_truth(origin["recompute"]),
        backward_code=_truth(origin.get("backward_code", False)),
        source=_optional(_text, origin.get("source")),
        called_from=_optional(_text, origin.get("called_from")),
    )


def _explanation(explanation: Mapping[str, Json]) -> Explanation:
    return Explanation(
        replay=_optional(_replay, explanation["replay"]),
        experiments=tuple(
            Experiment(
                pins=_texts(tried["pins"]),
                said=_text(tried["said"]),
                on=tried["on"],
                n=_integer(tried["n"]),
                differs=_optional(_truth, tried["differs"]),
                reason=_optional(_text, tried["reason"]),
            )
            for tried in explanation["experiments"]
        ),
        cure=_optional(_cure, explanation["cure"]),
        seconds=float(explanation["seconds"]),
    )


def _replay(replay: Mapping[str, Json]) -> Replay:
    return Replay(
        calls=_integer(replay["calls"]),
        counts=_integers(replay["counts"]),
        pairs=_integer(replay["pairs"]),
        differing_pairs=_integer(replay["differing_pairs"]),
        recorded=_optional(_integer, replay["recorded"]),
        output=_optional(_integer, replay["output"]),
        between=_optional(_ulp, replay["between"]),
        exact=tuple(_ulp(figures) for figures in replay["exact"]),
        inexact=_optional(_text, replay["inexact"]),
        problem=_optional(_text, replay["problem"]),
    )


def _cure(cure: Mapping[str, Json]) -> Cure:
    return Cure(
        pins=_texts(cure["pins"]),
        remedies=_texts(cure["remedies"]),
        runs=_integer(cure["runs"]),
        identical=_truth(cure["identical"]),
        slowdown=_optional(float, cure["slowdown"]),
        remaining=_optional(_origin, cure["remaining"]),
    )


def _caused_by(caused_by: Mapping[str, Json]) -> CausedBy:
    return CausedBy(
        op=_text(caused_by["op"]),
        module=_text(caused_by["module"]),
        call_site=_optional(_text, caused_by["call_site"]),
        called_from=_optional(_text, caused_by.get("called_from")),
    )


def _ulp(ulp: Mapping[str, Json]) -> UlpDivergence:
    return UlpDivergence(
        dtype=_text(ulp["dtype"]),
        shape=_integers(ulp["shape"]),
        numel=_integer(ulp["numel"]),
        differing=_integer(ulp["differing"]),
        unordered=_integer(ulp["unordered"]),
        nan_payload=_integer(ulp["nan_payload"]),
        signed_zero=_integer(ulp["signed_zero"]),
        infinity=_integer(ulp["infinity"]),
        sign_flips=_integer(ulp["sign_flips"]),
        max_ulp=_integer(ulp["max_ulp"]),
        max_index=_optional(_integers, ulp["max_index"]),
        max_values=_optional(_values, ulp["max_values"]),
        first_index=_optional(_integers, ulp["first_index"]),
        first_values=_optional(_values, ulp["first_values"]),
        sum_ulp=_integer(ulp["sum_ulp"]),
        histogram=_integers(ulp["histogram"]),
        less=_integer(ulp["less"]),
        greater=_integer(ulp["greater"]),
        max_absolute=float(ulp["max_absolute"]),
        max_relative=float(ulp["max_relative"]),
    )


def _cause(cause: Mapping[str, Json]) -> Cause:
    cls, confidence = cause["class"], cause["confidence"]
    if cls not in get_args(CauseClass) or confidence not in {"likely", "proven"}:
        raise ValueError(f"unknown cause {cls!r}, {confidence!r}")
    return Cause(
        cls=cls,
        confidence=confidence,
        evidence=_texts(cause["evidence"]),
        remedies=_texts(cause["remedies"]),
        source=_optional(_text, cause["source"]),
    )


def _confirmation(confirmation: Mapping[str, Json]) -> Confirmation:
    return Confirmation(
        run=_run(confirmation["run"]),
        holds=_truth(confirmation["holds"]),
        events=_events(confirmation["events"]),
        origin=_optional(_origin, confirmation["first_divergence"]),
        cause=_optional(_cause, confirmation["cause"]),
    )


def _self_check(check: Mapping[str, Json]) -> SelfCheck:
    return SelfCheck(
        compared=_integer(check["compared"]),
        varying=_texts(check["varying"]),
        differing=_texts(check["differing"]),
    )


def _optional(read: Callable[[Json], _T], value: Json) -> _T | None:
    return None if value is None else read(value)


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value


def _truth(value: Json) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _integer(value: Json) -> int:
    """An integer, or the string of one beyond 2^53."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"{value!r} is not an integer")
    return int(value)


def _mapping(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _integers(value: Json) -> tuple[int, ...]:
    return tuple(_integer(item) for item in _list(value))


def _values(value: Json) -> tuple[float, float]:
    first, second = _list(value)
    return float(first), float(second)


def _list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value

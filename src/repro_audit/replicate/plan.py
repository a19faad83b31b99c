"""A run's plan as JSON and back: how the process that audits tells the audited one what to be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from repro_audit.errors import InconclusiveError
from repro_audit.model import Given, Interval, Json, Plan, SiteKey, Target


def plan_to_json(plan: Plan) -> dict[str, Json]:
    """A plan as values that JSON has: what `plan_from_json` takes."""
    values: dict[str, Json] = _lists(asdict(plan))
    return values


def plan_from_json(values: Mapping[str, Json]) -> Plan:
    """The plan that `plan_to_json` made `values` of.

    Raises InconclusiveError where they are of another version: a field is missing or unknown.
    """
    try:
        target = _made(Target, values["target"])
        capture = tuple(_made(SiteKey, key) for key in values["capture"])
        interval = values["interval"]
        if interval is not None:
            ends = {name: key and _made(SiteKey, key) for name, key in interval.items()}
            interval = _made(Interval, ends)
        given = tuple(_made(Given, each) for each in values["given"])
        known = {"target": target, "capture": capture, "interval": interval, "given": given}
        plan: Plan = _made(Plan, {**values, **known})
    except (AttributeError, KeyError, TypeError) as error:
        raise InconclusiveError(
            f"This is no plan of this version ({error}). Run it with the version that wrote it."
        ) from error
    return plan


def _made(cls: type[Any], values: Mapping[str, Json]) -> Any:
    tuples = {field.name for field in fields(cls) if str(field.type).startswith("tuple")}
    return cls(**{name: tuple(v) if name in tuples else v for name, v in values.items()})


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    return value

"""The JSON report: its schema, its bytes, and the way back."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest

from repro_audit.errors import InconclusiveError, UsageError
from repro_audit.model import Audit, RunInfo
from repro_audit.report.json_report import load, save, to_json

SCHEMA = json.loads(files("repro_audit.report").joinpath("schema/report-1.json").read_text())
CONTRACT = {
    "schema",
    "tool",
    "verdict",
    "runs",
    "events",
    "observed",
    "first_divergence",
    "cause",
    "manifest_differences",
    "warnings",
}


def test_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["required"]) == CONTRACT


def test_report_fits_the_schema_and_comes_back(
    named_audit: tuple[str, Audit], tmp_path: Path
) -> None:
    audit = named_audit[1]
    path = tmp_path / "report.json"
    save(audit, path)
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(path.read_bytes()))
    assert load(path) == audit
    assert to_json(load(path)).encode() == path.read_bytes()
    assert path.read_bytes().isascii()


def test_order_of_a_manifest_changes_no_byte(audits: dict[str, Audit]) -> None:
    one = RunInfo("run-1", "x", {"b": {"d": 1, "c": [1, {"f": 0, "e": 1}]}, "a": 2})
    other = RunInfo("run-1", "x", {"a": 2, "b": {"c": [1, {"e": 1, "f": 0}], "d": 1}})
    assert to_json(replace(audits["identical"], runs=(one,))) == to_json(
        replace(audits["identical"], runs=(other,))
    )


def test_numbers_that_json_cannot_carry(audits: dict[str, Audit]) -> None:
    ulp = json.loads(to_json(audits["infinite"]))["first_divergence"]["ulp"]
    assert ulp["sum_ulp"] == str(2**100)
    assert ulp["histogram"][-1] == str(2**60)
    assert ulp["max_absolute"] == "Infinity"
    assert ulp["max_values"] == ["Infinity", "-Infinity"]
    manifest = {"seed": 2**53, "hash": 2**53 + 1, "nan": float("nan"), "flag": True}
    run = RunInfo("run-1", "x", manifest)
    written = json.loads(to_json(replace(audits["identical"], runs=(run,))))
    assert written["runs"][0]["manifest"] == {
        "seed": 2**53,
        "hash": str(2**53 + 1),
        "nan": "NaN",
        "flag": True,
    }


def test_unknown_fields_are_passed_over(audits: dict[str, Audit], tmp_path: Path) -> None:
    document = json.loads(to_json(audits["divergent"]))
    document["later"] = document["first_divergence"]["later"] = {"x": 1}
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document))
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert load(path) == audits["divergent"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a JSON report"),
        ("\x00\xff", "is not a JSON report"),
        ("[" * 100_000, "is not a JSON report"),
        ("[]", "not a report of repro-audit"),
        ("{}", "not a report of repro-audit"),
        ('{"schema": "repro-audit/report/2"}', "use the release that wrote it"),
        ('{"schema": "repro-audit/report/1"}', "not a whole report"),
    ],
)
def test_broken_reports_are_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InconclusiveError, match=said):
        load(path)


@pytest.mark.parametrize("field", sorted(CONTRACT - {"schema"}))
def test_every_field_is_held_to_its_type(
    audits: dict[str, Audit], tmp_path: Path, field: str
) -> None:
    document = json.loads(to_json(audits["divergent"]))
    path = tmp_path / "report.json"
    for value in (7, True, "x", [7]):
        path.write_text(json.dumps({**document, field: value}))
        with pytest.raises(InconclusiveError, match="not a whole report"):
            load(path)


def test_a_missing_report_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path / "none.json")

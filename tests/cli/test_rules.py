"""`repro-audit rules`: everything that a report may name is explained, here and in the docs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import repro_audit
from repro_audit.model import CauseClass
from repro_audit.model.rules import CAUSES, WARNINGS

DOCS = Path(__file__).parents[2] / "docs"
SOURCES = Path(repro_audit.__file__).parent


def test_every_code_that_is_given_is_a_rule() -> None:
    given = set()
    for path in SOURCES.rglob("*.py"):
        if path.name != "rules.py":
            given |= set(re.findall(r'"(RA\d{3})"', path.read_text(encoding="utf-8")))
    assert given == {rule.name for rule in WARNINGS}


def test_every_class_of_causes_is_a_rule() -> None:
    assert {rule.name for rule in CAUSES} == set(get_args(CauseClass))


def test_the_docs_have_the_same_words(audit_command: Callable[..., Any]) -> None:
    names = [rule.name for rule in WARNINGS]
    table = audit_command("rules", *names, "--format", "markdown").stdout
    assert (DOCS / "report.md").read_text(encoding="utf-8").endswith(table)
    causes = (DOCS / "causes.md").read_text(encoding="utf-8")
    assert all(f"| `{rule.name}` | " in causes for rule in CAUSES)


def test_one_rule_whatever_its_case(audit_command: Callable[..., Any]) -> None:
    found = audit_command("rules", "ra103", "--format", "json")
    (rule,) = json.loads(found.stdout)
    assert rule["name"] == "RA103"
    assert rule["means"].startswith("the divergence did not recur")
    text = audit_command("rules", "Data-Order").stdout
    assert text.splitlines()[0] == "data-order"
    assert "  try     `sorted()`" in text


def test_all_of_them_by_default(audit_command: Callable[..., Any]) -> None:
    lines = audit_command("rules").stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        rule.name for rule in (*WARNINGS, *CAUSES)
    ]


def test_an_unknown_rule(audit_command: Callable[..., Any]) -> None:
    found = audit_command("rules", "RA999")
    assert found.exit_code == 2
    assert "there is no rule RA999. Is it RA109?" in found.stderr

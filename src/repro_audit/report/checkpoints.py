"""What is said of checkpoints that were compared: as text, Markdown and JSON."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from rich.console import Console

from repro_audit import __version__
from repro_audit.model import (
    CheckpointPair,
    Comparison,
    Fingerprint,
    Json,
    TensorDifference,
    ValueDifference,
)
from repro_audit.report import phrases
from repro_audit.report.json_report import exact, ulp_values
from repro_audit.report.markdown import code, escaped
from repro_audit.report.page import Page, Sheet, Statements, glued
from repro_audit.report.phrases import printable
from repro_audit.report.terminal import HEADLINES, plain_text

_T = TypeVar("_T")

SCHEMA = "repro-audit/checkpoints/1"
# Of each kind of difference, in what a person reads.
_SHOWN = 5
_LONGEST_VALUE = 40
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def to_json(comparison: Comparison) -> str:
    """`comparison` as JSON, all of it; the same bytes for the same files."""
    document = {
        "schema": SCHEMA,
        "tool": {"version": __version__, "engine": comparison.engine},
        "verdict": comparison.verdict,
        "reason": comparison.reason,
        "ulp_tolerance": comparison.ulp_tolerance,
        "ignored": list(comparison.ignored),
        "files": [
            {
                "path": file.path,
                "form": file.form,
                "digest": file.digest,
                "tensors": file.tensors,
                "nbytes": file.nbytes,
                "values": file.values,
                "unread": list(file.unread),
            }
            for file in comparison.files
        ],
        "pairs": [
            {
                "a": comparison.files[0].path,
                "b": pair.other,
                "compared": pair.compared,
                "identical": pair.identical,
                "values_compared": pair.values_compared,
                "renaming": pair.renaming,
                "tied": list(pair.tied),
                "tensors": [_tensor(found) for found in pair.tensors],
                "values": [
                    {"name": v.name, "a": v.a, "b": v.b, "missing": v.missing} for v in pair.values
                ],
            }
            for pair in comparison.pairs
        ],
    }
    return json.dumps(exact(document), indent=2, allow_nan=False) + "\n"


def _tensor(found: TensorDifference) -> Json:
    return {
        "name": found.name,
        "other": found.other,
        "kind": found.kind,
        "within": found.within,
        "a": _fingerprint(found.a),
        "b": _fingerprint(found.b),
        "ulp": None if found.ulp is None else ulp_values(found.ulp),
        "rms": found.rms,
        "flipped_bit": found.flipped_bit,
    }


def _fingerprint(f: Fingerprint | None) -> Json:
    return None if f is None else {"digest": f.digest, "dtype": f.dtype, "shape": list(f.shape)}


def render_text(comparison: Comparison, width: int = 80) -> str:
    """`comparison` as plain text of at most `width` columns, ending in a newline."""
    return plain_text(lambda console: render(comparison, console), width)


def render(comparison: Comparison, console: Console) -> None:
    """Print `comparison` on `console`."""
    page = Page(console)
    word, style = _headline(comparison)
    page.paragraph(_subject(comparison), indent=0, lead=f"{word}  ", style=style)
    _tell(comparison, page)
    page.labelled("report", f"{_command(comparison)} --format json")


def to_markdown(comparison: Comparison) -> str:
    """`comparison` as GitHub's Markdown."""
    sheet = Statements()
    _tell(comparison, sheet)
    word, _ = _headline(comparison)
    lines = [f"## {word.capitalize()}: {escaped(_subject(comparison))}", ""]
    lines += [
        f"- {f'**{escaped(told.label)}** ' if told.label else ''}{escaped(told.text)}"
        for told in sheet.told
    ]
    lines += ["", code(_command(comparison))]
    return "\n".join(lines) + "\n"


def _headline(comparison: Comparison) -> tuple[str, str]:
    word, style = HEADLINES[comparison.verdict]
    return ("NOT COMPARABLE" if comparison.verdict == "different-program" else word), style


def _command(comparison: Comparison) -> str:
    words = comparison.words or ("compare", *(file.path for file in comparison.files))
    return f"repro-audit {printable(shlex.join(words))}"


def _subject(comparison: Comparison) -> str:
    if comparison.reason is not None:
        return comparison.reason
    said = []
    for pair in comparison.pairs:
        tensors = sum(found.kind not in {"missing", "renamed"} for found in pair.tensors)
        if tensors or not (pair.tensors or pair.values):
            all_of = phrases.count(pair.compared, "tensor")
            if not pair.compared:
                all_of = phrases.count(pair.values_compared, "value")
            number = f"{phrases.number(tensors)} of {all_of} {_verb(tensors)}"
            said.append(number if tensors else f"all of {all_of}")
        unmatched = len(pair.tensors) - tensors
        if unmatched:
            said.append(f"{phrases.count(unmatched, 'tensor')} without counterpart")
        if pair.values:
            said.append(f"{phrases.count(len(pair.values), 'value')} {_verb(len(pair.values))}")
        if len(comparison.pairs) > 1:
            others = phrases.count(len(comparison.pairs), "checkpoint")
            differing = sum(bool(each.tensors or each.values) for each in comparison.pairs)
            if not differing:
                return f"{others} and the first"
            return f"{phrases.number(differing)} of {others} {_verb(differing)} from the first"
    return ", ".join(said)


def _verb(count: int) -> str:
    return "differs" if count == 1 else "differ"


def _tell(comparison: Comparison, page: Sheet) -> None:
    for i, file in enumerate(comparison.files):
        much = f"{phrases.count(file.tensors, 'tensor')}, {_size(file.nbytes)}"
        if file.values:
            much += f", {phrases.count(file.values, 'value')}"
        label = _letter(i) if len(comparison.files) == 2 else str(i + 1)
        page.labelled(label, f"{printable(file.path)} ({much})")
        page.labelled("", f"{file.digest}  over all tensors")
        if file.unread:
            page.labelled("", f"not read: {_some(file.unread)}")
    for i, pair in enumerate(comparison.pairs):
        if len(comparison.pairs) > 1 and (pair.tensors or pair.values):
            page.labelled("1 and " + str(i + 2), f"{printable(pair.other)}:")
        names = _letter(0), _letter(1)
        if len(comparison.pairs) > 1:
            names = "1", str(i + 2)
        _pair(pair, names, page)
    if comparison.ulp_tolerance is not None and comparison.verdict == "within-tolerance":
        page.labelled("within", f"{phrases.number(comparison.ulp_tolerance)} ULP at every element")
    for pattern in comparison.ignored:
        page.labelled("ignored", printable(pattern))


def _letter(i: int) -> str:
    return "ab"[i]


def _pair(pair: CheckpointPair, names: tuple[str, str], page: Sheet) -> None:
    if pair.renaming:
        page.labelled("names", f"{printable(pair.renaming)} passed over to match names")
    apart = [found for found in pair.tensors if found.kind in {"value", "dtype", "shape"}]
    rounded = [found for found in apart if found.ulp is not None and not found.ulp.differing]
    if rounded:
        # A checkpoint that was saved in another dtype has nothing else to say, and of each tensor.
        _converted(rounded, names, page)
        apart = [found for found in apart if found not in rounded]
    # What has no distance first, then by how far it is off.
    sizes = [size for found in apart if (size := _size_apart(found)) is not None]
    apart.sort(key=_nearness)
    if len(apart) > 1 and sizes:
        page.labelled(
            "apart",
            f"by {_range(min(sizes), max(sizes))} of a tensor's size; the largest:",
        )
    _listed("differs", apart, lambda found: _differs(found, names), page)
    for found in apart:
        if found.flipped_bit is not None:
            page.labelled(
                "likely",
                f"suspected-hardware: one bit of {printable(found.name)} is another (bit "
                f"{found.flipped_bit} of one element), as a fault of memory or storage leaves it",
            )
            break
    renamed = [found for found in pair.tensors if found.kind == "renamed"]
    _listed(
        "renamed",
        renamed,
        lambda f: f"{printable(f.name)} is {printable(f.other)} in {names[1]}",
        page,
    )
    for side, which in zip(names, ("b", "a"), strict=True):
        only = [f for f in pair.tensors if f.kind == "missing" and getattr(f, which) is None]
        _listed(f"only {side}", only, _spec_of, page)
    _listed("values", list(pair.values), lambda value: _value(value, names), page)
    if pair.tied:
        page.labelled("tied", f"{_some(pair.tied)}: another name of what both have")


def _range(least: float, most: float) -> str:
    ends = phrases.short(least), phrases.short(most)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _nearness(found: TensorDifference) -> float:
    size = _size_apart(found)
    return -math.inf if size is None else -size


def _some(names: Sequence[str]) -> str:
    """The first few of them."""
    said = ", ".join(printable(name) for name in names[:_SHOWN])
    return said if len(names) <= _SHOWN else f"{said} and {len(names) - _SHOWN} more"


def _size_apart(found: TensorDifference) -> float | None:
    """How far off, where that is a number: not where one is infinite, or NaN, and the other not."""
    endless = found.ulp is not None and (found.ulp.infinity or found.ulp.unordered)
    return None if endless else found.rms


def _converted(found: Sequence[TensorDifference], names: tuple[str, str], page: Sheet) -> None:
    """Tensors of which one side is that of the other, rounded."""
    dtypes = Counter((f.a.dtype, f.b.dtype) for f in found if f.a is not None and f.b is not None)
    for i, ((a, b), count) in enumerate(sorted(dtypes.items())):
        page.labelled(
            "" if i else "dtype",
            f"{phrases.count(count, 'tensor')}: {printable(a)} in {names[0]}, {printable(b)} in "
            f"{names[1]}, equal when rounded to the narrower",
        )


def _listed(label: str, found: list[_T], said: Callable[[_T], str], page: Sheet) -> None:
    for i, each in enumerate(found[:_SHOWN]):
        page.labelled(label if i == 0 else "", said(each))
    if len(found) > _SHOWN:
        page.labelled("", f"and {phrases.number(len(found) - _SHOWN)} more")


def _differs(found: TensorDifference, names: tuple[str, str]) -> str:
    assert found.a is not None
    assert found.b is not None
    if found.kind == "value":
        said = f"{printable(found.name)} {glued(_spec(found.a))}"
    else:
        said = (
            f"{printable(found.name)} {glued(_spec(found.a))} in {names[0]}, "
            f"{glued(_spec(found.b))} in {names[1]}"
        )
    told = []
    size = _size_apart(found)
    if size is not None:
        told.append(f"{phrases.short(size)} of its size")
    if found.ulp is not None:
        told += phrases.ulp(found.ulp)
    return f"{said}: {', '.join(told)}" if told else said


def _spec_of(found: TensorDifference) -> str:
    only = found.a or found.b
    assert only is not None
    return f"{printable(found.name)} {glued(_spec(only))}"


def _spec(f: Fingerprint) -> str:
    return f"{printable(f.dtype)}[{', '.join(map(str, f.shape))}]"


def _value(found: ValueDifference, names: tuple[str, str]) -> str:
    name = printable(found.name)
    if found.missing is not None:
        value, side = (found.b, names[1]) if found.missing == "a" else (found.a, names[0])
        return f"{name}: {_short(value)}, in {side} alone"
    return f"{name}: {_short(found.a)} in {names[0]}, {_short(found.b)} in {names[1]}"


def _short(value: Json) -> str:
    said = printable(json.dumps(value, ensure_ascii=False))
    return said if len(said) <= _LONGEST_VALUE else f"{said[: _LONGEST_VALUE - 3]}..."


def _size(nbytes: int) -> str:
    for unit, name in _UNITS:
        if nbytes >= unit:
            return f"{nbytes / unit:.1f} {name}"
    return phrases.count(nbytes, "byte")


def fingerprint_lines(
    path: str, fingerprints: Mapping[str, Fingerprint], digest: str, *, tensors: bool
) -> Iterator[str]:
    """A line with the digest over all tensors of a file, after one for each if asked for."""
    if tensors:
        wide = max((len(_spec(f)) for f in fingerprints.values()), default=0)
        for name, f in fingerprints.items():
            yield f"{f.digest}  {_spec(f).ljust(wide)}  {printable(name)}"
    yield f"{digest}  {printable(path)}"

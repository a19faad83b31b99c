"""The pictures of a report, as Vega-Lite: heat map, drift over depth and steps, ULP, own errors.

Needs the extra `report` (Altair; its static pictures vl-convert). The same audit gives the same
chart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import vl_convert

from repro_audit.model import Audit, Drift, HeatMap, Json, OwnErrors, UlpDivergence
from repro_audit.report import phrases
from repro_audit.report.phrases import printable

# What Altair writes: vl-convert has several versions.
VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
# Told apart in print and by those who see fewer colours, on white and on black.
_ACCENT, _SECOND, _THIRD = "#d1495b", "#2f7ebc", "#8a6d3b"
_MUTED = "#8c8c8c"
_ROW, _WIDEST_LABEL = 16, 320
_OUTSIDE = "(outside modules)"
# Longer names are cut in the middle: each field of a heat map carries its own.
_LONGEST = 120
_TICKS = 12


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart with what it is called and what it says, in words."""

    name: str
    title: str
    says: str
    spec: dict[str, Json]


def pictures(audit: Audit, *, width: int | str = "container") -> list[Picture]:
    """All that can be drawn of `audit`; `width` in pixels, or that of what it stands in."""
    return [_sized(picture, width) for picture in _pictures(audit)]


def static(picture: Picture) -> str:
    """A picture as SVG, without scripts. The picture's width must be in pixels."""
    svg = vl_convert.vegalite_to_svg(picture.spec, vl_version=VEGA_LITE)
    return svg if svg.endswith("\n") else svg + "\n"


def _pictures(audit: Audit) -> Iterator[Picture]:
    if audit.overview is not None and any(map(any, audit.overview.heat.differing)):
        yield _heat(audit.overview.heat)
    if audit.origin is not None and audit.origin.ulp is not None:
        yield from _histogram(audit.origin.ulp)
    if audit.drift is not None:
        yield from _drift(audit.drift)
    if audit.own is not None and audit.own.errors:
        yield _own(audit.own)


def _heat(heat: HeatMap) -> Picture:
    measured = any(rms is not None for row in heat.rms for rms in row)
    ends = [*(step - 1 for step in heat.steps[1:]), heat.steps[-1]]
    width = heat.steps[1] - heat.steps[0] if len(heat.steps) > 1 else 1
    names = [
        str(first) if width == 1 else f"{first}-{max(last, first)}"
        for first, last in zip(heat.steps, ends, strict=True)
    ]
    if width > 1:
        names[-1] = f"{heat.steps[-1]}-"
    modules = [_cut(printable(module)) or _OUTSIDE for module in heat.modules]
    values = [
        {
            "module": module,
            "step": name,
            "differ": f"{phrases.number(differing)} of {phrases.count(compared, 'event')}",
            "share": differing / compared,
            "size": "not measured" if rms is None else f"{phrases.short(rms)} of its size",
        }
        for module, *row in zip(modules, heat.compared, heat.differing, heat.rms, strict=True)
        for name, compared, differing, rms in zip(names, *row, strict=True)
        if compared
    ]
    tooltip = [
        alt.Tooltip("module:N"),
        alt.Tooltip("step:N", title="step" if width == 1 else "steps"),
        alt.Tooltip("differ:N"),
    ]
    if measured:
        tooltip.append(alt.Tooltip("size:N", title="apart"))
    share = alt.Opacity(
        "share:Q",
        scale=alt.Scale(domain=[0, 1], range=[0.07, 1]),
        legend=alt.Legend(title="differ", format="%", orient="top"),
    )
    chart = (
        _chart(values)
        .mark_rect(color=_ACCENT, stroke=_MUTED, strokeWidth=0.3)
        .encode(
            x=alt.X(
                "step:N", sort=names, title="step", axis=alt.Axis(labelOverlap=True, labelAngle=0)
            ),
            y=alt.Y("module:N", sort=modules, title=None),
            opacity=share,
            tooltip=tooltip,
        )
        .properties(height=_ROW * len(modules))
    )
    where = sum(any(row) for row in heat.differing)
    return _picture(
        chart,
        "heat",
        "Which layers differ in which steps",
        f"{phrases.number(where)} of {phrases.count(len(modules), 'row')} "
        "differ somewhere. The fuller a field, the more of its events differ.",
    )


def _histogram(ulp: UlpDivergence) -> Iterator[Picture]:
    counts = ulp.histogram
    last = max((at for at, count in enumerate(counts) if count), default=0)
    if not last:
        return
    names = [_distance(at) for at in range(last + 1)]
    values = [
        {"distance": name, "elements": count, "share": count / (ulp.numel or 1)}
        for name, count in zip(names, counts, strict=False)
    ]
    whole = not phrases.has_ulp(ulp)
    unit = "distance" if whole else "distance in ULP"
    decades = [0, *(10**n for n in range(len(str(max(counts)))))]
    base = _chart(values).encode(
        x=alt.X("distance:N", sort=names, title=unit, axis=alt.Axis(labelAngle=-40)),
        y=alt.Y(
            "elements:Q",
            scale=alt.Scale(type="symlog"),
            axis=alt.Axis(values=decades, format=","),
            title="elements",
        ),
        tooltip=[
            alt.Tooltip("distance:N", title=unit),
            alt.Tooltip("elements:Q", format=","),
            alt.Tooltip("share:Q", format=".2%"),
        ],
    )
    count = alt.Text("elements:Q", format=",")
    chart = alt.layer(
        base.mark_bar(color=_SECOND),
        base.mark_text(dy=-6, fontSize=10).encode(text=count),
    ).properties(height=180)
    meaning = ""
    if not whole:
        meaning = f" An ULP is the step from one {printable(ulp.dtype)} number to the next; near "
        meaning += "zero many of them are little."
    yield _picture(
        chart,
        "ulp",
        "How far apart the elements are",
        f"Of {phrases.count(ulp.numel, 'element')} {phrases.number(ulp.differing)} differ."
        + meaning,
    )


def _distance(at: int) -> str:
    """What the histogram's bin counts: distance 0, then [2^(i-1), 2^i)."""
    if at < 2:
        return str(at)
    low, high = 1 << (at - 1), (1 << at) - 1
    return f"{low}-{high}" if high < 1000 else f"from 2^{at - 1}"


def _drift(drift: Drift) -> Iterator[Picture]:
    if len(drift.layers) > 1:
        yield _depth(drift)
    losses = [step for step in drift.steps if step.losses is not None]
    if len(losses) > 1:
        yield _losses(drift)
    if sum(step.forward is not None or step.weights is not None for step in drift.steps) > 1:
        yield _steps(drift)


def _depth(drift: Drift) -> Picture:
    modules = [printable(gap.key.module) or phrases.op_name(gap.key.op) for gap in drift.layers]
    measured, allowed = "between the runs", "what rounding explains"
    values: list[dict[str, Json]] = []
    for module, gap in zip(modules, drift.layers, strict=True):
        kinds = ((measured, gap.deviation.rms), (allowed, gap.expected))
        values += [
            {"layer": module, "what": what, "rms": rms, "size": phrases.short(rms)}
            for what, rms in kinds
            if rms and math.isfinite(rms)
        ]
    step = drift.layers[0].key.step
    return _picture(
        _lines(values, "layer", modules, [measured, allowed]),
        "depth",
        "Drift over depth",
        f"The last result of each layer in the first forward pass that differs, in step {step}.",
    )


def _losses(drift: Drift) -> Picture:
    names = [printable(run) for run in drift.runs]
    values: list[dict[str, Json]] = []
    unlike = []
    for step in drift.steps:
        for name, loss in zip(names, step.losses or (), strict=False):
            if math.isfinite(loss):
                values.append({"step": step.step, "what": name, "loss": loss, "size": repr(loss)})
            else:
                unlike.append(f"{loss} in step {step.step} of {name}")
    steps = [step.step for step in drift.steps]
    few = alt.Axis(format="d", values=steps) if len(steps) <= _TICKS else alt.Axis(format="d")
    chart = (
        _chart(values)
        .mark_line(point=True)
        .encode(
            x=alt.X("step:Q", title="step", axis=few, scale=alt.Scale(nice=False)),
            y=alt.Y("loss:Q", scale=alt.Scale(zero=False)),
            color=_colour(names, (_ACCENT, _SECOND)),
            strokeDash=alt.StrokeDash("what:N", sort=names, legend=None),
            tooltip=[
                alt.Tooltip("step:Q"),
                alt.Tooltip("what:N", title="run"),
                alt.Tooltip("size:N", title="loss"),
            ],
        )
        .properties(height=180)
    )
    says = "What each step's backward began at."
    if unlike:
        says += f" Not drawn: {phrases.listing(unlike[:_TICKS])}."
    return _picture(chart, "loss", "The loss of both runs", says)


def _steps(drift: Drift) -> Picture:
    last, weights = "the last result of the forward", "the parameter that is furthest apart"
    values: list[dict[str, Json]] = []
    steps = [str(step.step) for step in drift.steps]
    for step in drift.steps:
        values += [
            {"step": str(step.step), "what": what, "rms": rms, "size": phrases.short(rms)}
            for what, rms in ((last, step.forward), (weights, step.weights))
            if rms and math.isfinite(rms)
        ]
    drawn = {value["step"] for value in values}
    without = [step for step in steps if step not in drawn]
    says = "How far the two runs are apart in each step, of the size of the tensor."
    if without:
        more = " and others" if len(without) > _TICKS else ""
        says += f" No size to draw in step {phrases.listing(without[:_TICKS])}{more}."
    return _picture(
        _lines(values, "step", steps, [last, weights]),
        "steps",
        "Drift over steps",
        says,
    )


def _own(own: OwnErrors) -> Picture:
    kinds = {
        "its own error": (_ACCENT, "circle"),
        "with what it inherits": (_MUTED, "diamond"),
        "here, from float64": (_SECOND, "triangle-up"),
        "there, from float64": (_THIRD, "triangle-down"),
    }
    values: list[dict[str, Json]] = []
    places: list[str] = []
    for error in own.errors:
        *_, module, op = ("", *phrases.site(error.gap.key))
        place = f"{module} · {op.removeprefix('aten.')} ({error.gap.key.phase})"
        if place in places:
            continue
        places.append(place)
        found = (error.own, error.total, error.here, error.there)
        values += [
            {"place": place, "what": what, "rms": one.rms, "size": phrases.short(one.rms)}
            for what, one in zip(kinds, found, strict=True)
            if one is not None and one.rms and math.isfinite(one.rms)
        ]
    names = list(kinds)
    chart = (
        _chart(values)
        .mark_point(filled=True, size=70, opacity=0.9)
        .encode(
            x=alt.X(
                "rms:Q",
                scale=alt.Scale(type="log"),
                title="of its size",
                axis=alt.Axis(format=".0e"),
            ),
            y=alt.Y("place:N", sort=places, title=None, axis=alt.Axis(grid=True)),
            color=_colour(names, [colour for colour, _ in kinds.values()]),
            shape=alt.Shape(
                "what:N",
                scale=alt.Scale(domain=names, range=[shape for _, shape in kinds.values()]),
            ),
            tooltip=[
                alt.Tooltip("place:N"),
                alt.Tooltip("what:N"),
                alt.Tooltip("size:N", title="of its size"),
            ],
        )
        .properties(height=(_ROW + 6) * len(places))
    )
    return _picture(
        chart,
        "own",
        "Own error and inherited error",
        "Each op was given the other machine's values: what it then differs by is its own doing.",
    )


def _lines(
    values: list[dict[str, Json]], along: str, order: Sequence[str], names: Sequence[str]
) -> alt.Chart:
    """Sizes along layers or steps, one line each; the second is dashed."""
    chart: alt.Chart = (
        _chart(values)
        .mark_line(point=True)
        .encode(
            x=alt.X(
                f"{along}:N",
                sort=list(order),
                scale=alt.Scale(domain=list(dict.fromkeys(order))),
                title=along,
                axis=alt.Axis(
                    labelOverlap=True, labelLimit=140, labelAngle=-40 if along == "layer" else 0
                ),
            ),
            y=alt.Y(
                "rms:Q",
                scale=alt.Scale(type="log"),
                title="of its size",
                axis=alt.Axis(format=".0e"),
            ),
            color=_colour(names, (_ACCENT, _SECOND)),
            strokeDash=alt.StrokeDash("what:N", sort=list(names), legend=None),
            tooltip=[
                alt.Tooltip(f"{along}:N"),
                alt.Tooltip("what:N"),
                alt.Tooltip("size:N", title="of its size"),
            ],
        )
        .properties(height=220)
    )
    return chart


def _chart(values: list[dict[str, Json]]) -> alt.Chart:
    return alt.Chart(alt.Data(values=values))  # type: ignore[no-untyped-call]


def _colour(names: Sequence[str], colours: Sequence[str]) -> alt.Color:
    return alt.Color(
        "what:N",
        scale=alt.Scale(domain=list(names), range=list(colours)),
        legend=alt.Legend(title=None, orient="top", labelLimit=_WIDEST_LABEL),
    )


def _cut(name: str) -> str:
    half = _LONGEST // 2
    return name if len(name) <= _LONGEST else f"{name[:half]}…{name[-half:]}"


def _picture(
    chart: alt.Chart | alt.LayerChart | alt.FacetChart, name: str, title: str, says: str
) -> Picture:
    styled = chart.properties(
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding")
    ).configure(
        background="transparent",
        font="system-ui, sans-serif",
        axis=alt.AxisConfig(labelLimit=_WIDEST_LABEL, grid=False, labelFontSize=11),
        view=alt.ViewConfig(stroke=None),
    )
    spec: dict[str, Any] = styled.to_dict()
    return Picture(name, title, says, spec)


def _sized(picture: Picture, width: int | str) -> Picture:
    spec = {**picture.spec, "width": width}
    if width != "container":
        spec["background"] = "white"
    return Picture(picture.name, picture.title, picture.says, spec)

"""The HTML report: one file that needs no network, for people who never saw an audit.

Needs the extra `report`. The same audit gives the same bytes; its size does not grow with the
traces, for what it shows of them is `Audit.overview`.
"""

from __future__ import annotations

import vl_convert
from markupsafe import Markup

from repro_audit import __version__
from repro_audit.model import Audit
from repro_audit.report import pages
from repro_audit.report.assets import asset, environment
from repro_audit.report.charts import VEGA_LITE, pictures
from repro_audit.report.phrases import printable
from repro_audit.report.story import commands, story

_WORDS = (
    (
        "event",
        "one recorded thing: an operation and what it wrote, a parameter after a step, a batch.",
    ),
    (
        "origin",
        "the first event whose inputs agree and whose outputs differ; what follows may be its "
        "consequence.",
    ),
    (
        "ULP",
        "unit in the last place: the step from one floating-point number to the next. Near zero "
        "many of them are little.",
    ),
    (
        "of its size",
        "the difference of two tensors, root mean square, over the larger one's: 1e-7 is what "
        "rounding once to float32 does, 1 is another result.",
    ),
    (
        "own error",
        "what an operation differs by when it is given the other machine's inputs; the rest is "
        "inherited.",
    ),
    (
        "likely, proven",
        "a cause is likely by what was recorded, and proven where changing that one condition "
        "made the difference vanish.",
    ),
)


def to_html(audit: Audit) -> str:
    """`audit` as one self-contained page."""
    told = story(audit)
    drawn = pictures(audit)
    sites = pages.sites(audit.overview)
    cells = pages.cells(audit.matrix)
    contents = [("what", "In numbers"), *((part.anchor, part.title) for part in told.parts)]
    contents += [("cells", "The matrix")] * (cells is not None)
    contents += [("pictures", "In pictures")] * bool(drawn) + [("events", "Compared")] * bool(sites)
    contents += [("conditions", "Conditions"), ("again", "Do it again"), ("words", "Words")]
    page = (
        environment(escaped=True)
        .get_template("report.html.j2")
        .render(
            command=audit.command,
            target=printable(audit.target),
            verdict=told.verdict,
            subject=told.subject,
            place=told.place,
            contents=contents,
            tiles=list(pages.tiles(audit)),
            parts=told.parts,
            pictures=drawn,
            sites=sites,
            cells=cells,
            differences=pages.differences(audit),
            runs=pages.runs(audit),
            again=list(commands(audit)),
            words=_WORDS,
            version=__version__,
            engine=printable(audit.engine),
            style=Markup(asset("style.css")),
            script=Markup(asset("script.js")),
            bundle=_vega() if drawn else None,
        )
    )
    return page if page.endswith("\n") else page + "\n"


def _vega() -> Markup:
    """Vega, Vega-Lite and Vega-Embed in one script that sets `vegaEmbed`."""
    return Markup(vl_convert.javascript_bundle(vl_version=VEGA_LITE))  # type: ignore[call-arg]

"""Fabricated overviews: of few modules, of as much as a report may hold, of hostile names."""

from __future__ import annotations

from dataclasses import replace

from repro_audit.diagnose.overview import COLUMNS, ROWS, SITES
from repro_audit.model import Audit, HeatMap, Overview, SiteExtent

SMALL = Overview(
    runs=("run-1", "run-2"),
    heat=HeatMap(
        modules=("", "emb", "head"),
        steps=(0, 1, 2),
        compared=((13, 10, 10), (5, 4, 4), (8, 0, 6)),
        differing=((0, 4, 4), (2, 3, 3), (0, 0, 4)),
        rms=((None, 1e-7, 3e-7), (2e-3, 3e-3, 0.5), (None, None, 1e-4)),
    ),
    sites=(
        SiteExtent("backward", "emb", "aten.index_put.default", 3, 3, 0, 42, 2e-3, 65536, ""),
        SiteExtent("weights", "emb", "param:weight", 4, 3, 0, 83, 3e-3, 1024, ""),
        SiteExtent("forward", "head", "aten.addmm.default", 3, 2, 1, 96, 1e-4, 7, ""),
        SiteExtent("forward", "", "aten.randn.default", 1, 0, None, None, None, None, ""),
    ),
    omitted=0,
)


def large(count: int = SITES) -> Overview:
    """As much as an overview may hold, of a trace of any size."""
    modules = tuple(f"transformer.h.{row}.attn.c_proj" for row in range(ROWS))
    sites = tuple(
        SiteExtent(
            "forward" if at % 2 else "backward",
            modules[at % ROWS],
            f"aten.op_{at}.default",
            1000 + at,
            at % 7,
            at if at % 7 else None,
            100 * at if at % 7 else None,
            1e-7 * (at + 1) if at % 7 else None,
            at if at % 7 else None,
            "",
        )
        for at in range(count)
    )
    table = tuple(tuple(range(col, col + COLUMNS)) for col in range(1, ROWS + 1))
    differing = tuple(tuple(n // 2 for n in row) for row in table)
    rms = tuple(tuple(1e-8 * n for n in row) for row in table)
    steps = tuple(range(0, 20 * COLUMNS, 20))
    return Overview(("a", "b"), HeatMap(modules, steps, table, differing, rms), sites, 99_000)


def overview_audits(divergent: Audit, identical: Audit, hostile: str) -> dict[str, Audit]:
    """Audits by name that have an overview."""
    heat = replace(SMALL.heat, modules=(hostile, "emb", "head"))
    sites = tuple(replace(site, module=hostile, op=hostile) for site in SMALL.sites)
    assert divergent.origin is not None
    lined = replace(divergent.origin, source="loss = emb[tokens].mean()")
    alike = HeatMap(("fc",), (0,), ((4,),), ((0,),), ((None,),))
    same = SiteExtent("forward", "fc", "aten.mm.default", 4, 0, None, None, None, None, "")
    return {
        "overview": replace(divergent, origin=lined, overview=SMALL),
        "overview-large": replace(divergent, overview=large()),
        "overview-hostile": replace(
            divergent,
            target=hostile,
            origin=replace(lined, source=hostile),
            overview=replace(SMALL, runs=(hostile, hostile), heat=heat, sites=sites),
        ),
        "overview-identical": replace(
            identical, overview=Overview(("run-1", "run-2"), alike, (same,), 0)
        ),
    }

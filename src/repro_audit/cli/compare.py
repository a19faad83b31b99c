"""`repro-audit compare`: what differs between traces that are there already?"""

from __future__ import annotations

from pathlib import Path

import click

from repro_audit.cli import output as out
from repro_audit.cli.audits import find_trace
from repro_audit.cli.tolerance import tolerance_of, tolerance_options
from repro_audit.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  repro-audit compare here.audit there.audit
  repro-audit compare a100.audit h100.audit --rounding
  repro-audit compare 0003 0004               the first runs of two audits
""",
)
@click.argument("places", nargs=-1, metavar="A B...")
@tolerance_options
@out.report_options
@click.option("--exit-zero", is_flag=True, help="Exit 0 even when they diverge.")
def compare(
    *,
    places: tuple[str, ...],
    ulp_tol: int | None,
    rounding: bool,
    format_: str,
    output: Path | None,
    force: bool,
    exit_zero: bool,
) -> int:
    """Name what differs between recorded runs, and how far they drift apart.

    A and B are recordings, here or from other machines, or audits by number or
    directory.
    """
    if len(places) < 2:
        raise UsageError(
            "compare needs two traces or more, such as "
            f"`repro-audit compare {' '.join(places) or 'here.audit'} there.audit`"
        )
    traces = [find_trace(word) for word in places]
    out.ensure_report(format_, output, force=force)
    from repro_audit.audit import compare_traces

    audit = compare_traces(traces, tolerance_of(ulp_tol=ulp_tol, rounding=rounding))
    out.finish(audit, format_, output)
    return out.exit_code(audit, exit_zero=exit_zero)

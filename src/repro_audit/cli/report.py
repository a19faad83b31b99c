"""`repro-audit report`: a finished audit again, in any format, without torch."""

from __future__ import annotations

from pathlib import Path

import click

from repro_audit.cli import output as out
from repro_audit.cli.audits import find_report


@click.command(
    epilog="""\b
Examples:
  repro-audit report                          the latest audit
  repro-audit report 0003 --format json -o audit.json
""",
)
@click.argument("audit", required=False)
@out.report_options
def report(*, audit: str | None, format_: str, output: Path | None, force: bool) -> int:
    """Show a finished audit again, in any format.

    AUDIT is a number or a path; without it, the latest is shown. Exits 0
    whatever the verdict.
    """
    from repro_audit.report.json_report import load

    out.ensure_writable(output, force=force)
    finished = load(find_report(audit))
    if output is None:
        out.show(finished, format_)
    else:
        out.deliver(out.rendered(finished, format_), output)
        click.echo(f"wrote {output}")
    return 0

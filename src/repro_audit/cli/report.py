"""`repro-audit report`: a finished audit again, in any format, without torch."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from repro_audit.cli import output as out
from repro_audit.cli.audits import find_report
from repro_audit.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  repro-audit report                          the latest audit
  repro-audit report 0003 --format json -o audit.json
  repro-audit report 0003 --format html --open
""",
)
@click.argument("audit", required=False)
@out.report_options
@click.option("--open", "opened", is_flag=True, help="Show the page in a browser.")
def report(
    *, audit: str | None, format_: str, output: Path | None, force: bool, opened: bool
) -> int:
    """Show a finished audit again, in any format.

    AUDIT is a number or a path; without it, the latest is shown. Exits 0
    whatever the verdict.
    """
    from repro_audit.report.json_report import load

    if opened and format_ != "html":
        raise UsageError("--open shows a page in a browser: it goes with --format html")
    place = find_report(audit)
    if opened and output is None:
        # A browser may read it after this has ended.
        output = Path(
            tempfile.mkdtemp(prefix="repro-audit-"),
            f"{place.resolve().parent.name or 'report'}.html",
        )
    out.ensure_report(format_, output, force=force)
    finished = load(place)
    if output is None:
        out.show(finished, format_)
        return 0
    out.deliver(finished, format_, output)
    click.echo(f"wrote {output}")
    if opened and click.launch(str(output)):
        raise UsageError(f"no browser could be started; open {output} yourself")
    return 0

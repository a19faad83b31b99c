"""`repro-audit compare`: what differs between traces, or checkpoints, that are there already?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from repro_audit.cli import output as out
from repro_audit.cli.audits import FIRST_TRACE, find_audit, find_trace
from repro_audit.cli.tolerance import tolerance_of, tolerance_options
from repro_audit.errors import UsageError
from repro_audit.model import Comparison

_FORMATS = ("text", "json", "markdown")


@click.command(
    epilog="""\b
Examples:
  repro-audit compare here.audit there.audit
  repro-audit compare a100.audit h100.audit --rounding
  repro-audit compare 0003 0004               the first runs of two audits
  repro-audit compare before.safetensors after.safetensors
  repro-audit compare straight/ resumed/ --ignore 'training_args*'
""",
)
@click.argument("places", nargs=-1, metavar="A B...")
@tolerance_options
@click.option(
    "--ignore",
    multiple=True,
    metavar="PATTERN",
    help="Of checkpoints: leave out the names that fit, such as 'optimizer.*'. May be repeated.",
)
@out.report_options
@click.option("--exit-zero", is_flag=True, help="Exit 0 even when they diverge.")
def compare(
    *,
    places: tuple[str, ...],
    ulp_tol: int | None,
    rounding: bool,
    ignore: tuple[str, ...],
    format_: str,
    output: Path | None,
    force: bool,
    exit_zero: bool,
) -> int:
    """Name what differs between recorded runs, or between checkpoints.

    A and B are recordings, here or from other machines, or audits by number or
    directory: what differs first, and how far they drift apart. Or they are
    checkpoints (safetensors, files of torch.save's, .npz, directories of them,
    fingerprints): which tensors differ, and by how much.
    """
    if len(places) < 2:
        raise UsageError(
            "compare needs two traces or more, or two checkpoints, such as "
            f"`repro-audit compare {' '.join(places) or 'here.audit'} there.audit`"
        )
    out.ensure_report(format_, output, force=force)
    tolerance = tolerance_of(ulp_tol=ulp_tol, rounding=rounding)
    checkpoints = [word for word in places if _is_checkpoint(word)]
    if len(checkpoints) == len(places):
        if rounding:
            raise UsageError(
                "--rounding goes with recordings, which tell what an op added up; of checkpoints "
                "--ulp-tol N tolerates a distance"
            )
        return _of_checkpoints(places, ulp_tol, ignore, format_, output, exit_zero=exit_zero)
    if checkpoints:
        other = next(word for word in places if word not in checkpoints)
        find_trace(other)
        raise UsageError(
            f"{checkpoints[0]} is a checkpoint and {other} is none: compare checkpoints with "
            "checkpoints, and traces with traces"
        )
    if ignore:
        raise UsageError("--ignore leaves out names of checkpoints; these are traces")
    traces = [find_trace(word) for word in places]
    from repro_audit.audit import compare_traces

    audit = compare_traces(traces, tolerance)
    out.finish(audit, format_, output)
    return out.exit_code(audit, exit_zero=exit_zero)


def _is_checkpoint(word: str) -> bool:
    path = Path(word)
    # An audit may keep tensors beside its traces.
    if find_audit(word) is not None or not path.exists() or (path / FIRST_TRACE).exists():
        return False
    from repro_audit.checkpoint import is_checkpoint

    try:
        return is_checkpoint(path)
    except OSError as error:
        raise UsageError(f"cannot read {word}: {error.strerror}; name another place") from error


def _of_checkpoints(
    places: tuple[str, ...],
    ulp: int | None,
    ignore: tuple[str, ...],
    format_: str,
    output: Path | None,
    *,
    exit_zero: bool,
) -> int:
    if format_ not in _FORMATS:
        raise UsageError(
            f"of checkpoints there is no report in {format_}; {', '.join(_FORMATS)} are there"
        )
    from repro_audit.audit import compare_checkpoints
    from repro_audit.report import checkpoints as report

    found: Comparison = compare_checkpoints(
        [Path(word) for word in places], ulp=ulp, ignored=ignore
    )
    found = replace(found, words=tuple(out.of_the_audit()))
    rendered = {"json": report.to_json, "markdown": report.to_markdown, "text": report.render_text}
    if output is not None:
        out.write(rendered[format_](found), output)
    if output is not None or format_ == "text":
        out.show_on_console(lambda console: report.render(found, console))
    else:
        out.say(rendered[format_](found))
    if output is not None:
        click.echo(f"  wrote   {output}")
    return out.code_of(found.verdict, exit_zero=exit_zero)

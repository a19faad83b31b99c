"""`repro-audit fingerprint`: which weights are in a file?"""

from __future__ import annotations

from pathlib import Path

import click

from repro_audit.cli import output as out
from repro_audit.errors import UsageError


@click.command(
    epilog="""\b
Examples:
  repro-audit fingerprint model.safetensors
  repro-audit fingerprint checkpoint-500/ --tensors
  repro-audit fingerprint model.pt --format json -o weights.json
  repro-audit compare weights.json model.pt   are they still the same?
""",
)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE..."
)
@click.option("--tensors", "-t", is_flag=True, help="A line for each tensor, too.")
@out.format_option(
    ("text", "json"), "text, or json: all tensors and values, to compare with later."
)
@out.file_options
def fingerprint(
    *, files: tuple[Path, ...], tensors: bool, format_: str, output: Path | None, force: bool
) -> int:
    """Print the digest over all tensors of each checkpoint.

    FILE is safetensors, a file of torch.save's, .npy, .npz, an index of shards,
    or a directory of them, of torch.distributed.checkpoint's too. No pickle is
    loaded, and torch need not be there. The digest is that of
    `repro_audit.fingerprint` of the state dict in it.
    """
    out.ensure_writable(output, force=force)
    if output is not None and any(output.resolve() == file.resolve() for file in files):
        raise UsageError(f"{output} is what is looked at; name another place with -o")
    from repro_audit.checkpoint import open_checkpoint, to_json

    if format_ == "json":
        text = to_json([open_checkpoint(file) for file in files])
        if output is None:
            out.say(text)
    else:
        from repro_audit.report.checkpoints import fingerprint_lines

        text = ""
        for file in files:
            each = open_checkpoint(file)
            lines = fingerprint_lines(
                each.path, each.fingerprints, each.fingerprints.digest, tensors=tensors
            )
            told = "".join(f"{line}\n" for line in lines)
            text += told
            # At once: what follows may be gigabytes, or damaged.
            if output is None:
                out.say(told)
    if output is None:
        return 0
    out.write(text, output)
    click.echo(f"wrote {output}")
    return 0

"""Templates and other files of ours that reports are made of."""

from __future__ import annotations

from importlib.resources import files

import jinja2

from repro_audit.errors import ReproAuditError


def asset(name: str) -> str:
    """The text of a file. Raises ReproAuditError where the installation lacks it."""
    try:
        return files("repro_audit.report").joinpath("templates", name).read_text("utf-8")
    except OSError as error:
        raise ReproAuditError(
            f"repro-audit's own file templates/{name} cannot be read ({error.strerror}): "
            "install repro-audit again"
        ) from error


def environment(*, escaped: bool) -> jinja2.Environment:
    """How templates are filled in: HTML is `escaped` by itself, whatever stands in it."""
    found = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return found

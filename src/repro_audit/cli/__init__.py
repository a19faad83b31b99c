"""The command line: one module a subcommand, each thin."""

from repro_audit.cli.group import main

__all__ = ["main"]

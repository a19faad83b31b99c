"""`python -m repro_audit`: the command line."""

from __future__ import annotations

from repro_audit.cli import main

if __name__ == "__main__":
    main()

"""Calls for programs that train: what they ask of repro-audit while they run."""

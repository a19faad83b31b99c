"""Diagnose: pure functions of traces. What differs first, how much, and what that suggests."""

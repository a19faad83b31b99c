"""Renders audits: one module a format, from the values of `model` alone."""

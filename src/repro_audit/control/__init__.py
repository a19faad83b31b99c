"""The control room: seeds, determinism switches, process environment, provenance.

Importing it imports neither torch nor NumPy.
"""

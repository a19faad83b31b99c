"""The numbers by which traces have what events are: those who record and who read say the same."""

from __future__ import annotations

KINDS = ("op", "param", "batch", "rng", "module", "state")
KIND_OP, KIND_PARAM, KIND_BATCH, KIND_RNG, KIND_MODULE, KIND_STATE = range(6)
# What a program keeps between operators.
HELD = frozenset({KIND_PARAM, KIND_STATE})
# Events of tensors that are there, which no operator reads or writes.
PRESENT = HELD | {KIND_BATCH}
PHASES = ("data", "rng", "weights", "forward", "backward", "optimizer")
DATA, RNG, WEIGHTS, FORWARD, BACKWARD, OPTIMIZER = range(6)
# Functions that seed the generators of devices: of `torch.cuda` and so on, where they have them.
SEEDINGS = ("manual_seed", "manual_seed_all", "seed", "seed_all")
# Flags of an event.
TAINTED, RANDOM, RECOMPUTE, INPUTS, OWN_GENERATOR, BACKWARD_CODE = 1, 2, 4, 8, 16, 32
# What rows of `measured` compare; the last says how a change of the arguments grows in the result.
OWN, HERE, THERE, CONDITION = range(4)
# Operators that add where `accumulate` says so, which stands here among their arguments.
ACCUMULATE = {"_index_put_impl": 3, "index_put": 3, "put": 3}

"""Graphs that one thread builds and another runs backward: whose operators are their nodes?

Numbers of autograd nodes are a thread's own, so a node alone does not tell. Every thread but the
main one therefore leaves its bindings in the nodes that it made, when it uses or returns what they
gave. A node that has none is that of the nodes it leads to, or else the main thread's.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from repro_audit.capture.dispatch import OpMode

# Number of a node: (event, module path, op) of the operator that it belongs to.
Bindings = dict[int, tuple[int, str, str]]

_KEY = "repro_audit"


def mark(value: Any, mode: OpMode) -> None:
    """Leave the bindings of a thread in its own nodes, those that made the tensors in `value`.

    Not for views that autograd has not asked for their node itself: a write to one lets a question
    make another node.
    """
    if isinstance(value, torch.Tensor):
        if value.requires_grad:
            node: Any = value.grad_fn
            if node is not None and _KEY not in node.metadata and _made_by(mode, node):
                node.metadata[_KEY] = mode.bindings
    elif isinstance(value, list | tuple):
        for item in value:
            mark(item, mode)


def bindings_of(node: Any, mode: OpMode) -> Bindings:
    """The bindings of the thread that made `node`, which the thread of `mode` runs backward."""
    found: Bindings | None = node.metadata.get(_KEY)
    if found is not None:
        return found
    for following, _ in node.next_functions:
        if following is not None and following.name() != _ACCUMULATE:
            told: Bindings | None = following.metadata.get(_KEY)
            if told is not None:
                return told
    return mode.bindings if _made_by(mode, node) else mode.recorder.main.bindings


def _made_by(mode: OpMode, node: Any) -> bool:
    """True if the thread of `mode` has run such an operator under the node's number."""
    known = mode.bindings.get(node._sequence_nr())
    return known is not None and _same(node.name(), known[2])


_ACCUMULATE = "torch::autograd::AccumulateGrad"


@functools.cache
def _same(node: str, op: str) -> bool:
    """True if a node's name (MulBackward0) is made of its operator's (aten.mul.Tensor)."""
    base = op.split(".")[1] if op.count(".") > 1 else op
    return node.partition("Backward")[0].lower() == base.replace("_", "").lower()

"""Graphs that one thread builds and another runs backward: whose operators are their nodes?

Numbers of autograd nodes are a thread's own, so a node alone does not tell. Every thread but the
main one therefore leaves its causes in the nodes that it made, when it uses or returns what they
gave. A node that has none is that of the nodes it leads to, or else the main thread's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from repro_audit.capture.causes import Bound, Causes, fits

if TYPE_CHECKING:
    from repro_audit.capture.places import Places

_KEY = "repro_audit"
_ACCUMULATE = "torch::autograd::AccumulateGrad"


def mark(value: Any, mode: Places) -> None:
    """Leave the causes of a thread in its own nodes, those that made the tensors in `value`.

    Not for views that autograd has not asked for their node itself: a write to one lets a question
    make another node.
    """
    if isinstance(value, torch.Tensor):
        if value.requires_grad:
            node: Any = value.grad_fn
            if node is not None and _KEY not in node.metadata and _made_by(mode, node):
                node.metadata[_KEY] = mode.causes
    elif isinstance(value, list | tuple):
        for item in value:
            mark(item, mode)


def causes_of(node: Any, mode: Places) -> Causes:
    """The causes of the thread that made `node`, which the thread of `mode` runs backward."""
    found: Causes | None = node.metadata.get(_KEY)
    if found is not None:
        return found
    for following, _ in node.next_functions:
        if following is not None and following.name() != _ACCUMULATE:
            told: Causes | None = following.metadata.get(_KEY)
            if told is not None:
                return told
    return mode.causes if _made_by(mode, node) else mode.recorder.main.causes


def among(threads: Iterable[Causes], node: Any) -> Bound | None:
    """A node's operator where one of several threads made it: that which has the node's name, else
    the first's.
    """
    number = node._sequence_nr()
    found = [bound for causes in threads if (bound := causes.of(node, number)) is not None]
    name = node.name()
    fitting = (bound for bound in found if fits(name, bound[2].name))
    return next(fitting, found[0] if found else None)


def _made_by(mode: Places, node: Any) -> bool:
    """True if the thread of `mode` has run such an operator under the node's number."""
    known = mode.causes.of(node, node._sequence_nr())
    return known is not None and fits(node.name(), known[2].name)

"""Operators run as they run with no mode on, where torch would compute them otherwise."""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from repro_audit import engine

# Dispatch keys between autograd and the kernels that no tensor has and torch gives no fallback.
# The first leaves operators as a mode sees them, but only newer versions have it; beneath the
# other one most operators are seen by their `out` overloads.
_UNUSED = ("Fake", "CustomRNGKeyId")
# Overloads whose gradient torch computes by one formula where a mode is on, by another without.
_CHOOSING = frozenset(
    {
        "_linalg_det",
        "_linalg_eigh",
        "_linalg_svd",
        "binary_cross_entropy",
        "binary_cross_entropy_backward",
        "binary_cross_entropy_with_logits",
        "cumprod",
        "linalg_eig",
        "masked_fill.Tensor",
        "masked_fill_.Tensor",
        "max",
        "median",
        "min",
        "nanmedian",
        "prod",
        "prod.dim_int",
    }
)
# Beside what reaches a mode whole in inference alone: whose kernels make lazy views.
_CONJUGATING = ("fft_", "linalg_")
# Of views whose elements are conjugated, negated or none before they are read; what a mode calls
# runs with these excluded, and so takes such views that it makes itself for what they view.
_LAZY = (
    torch._C.DispatchKey.Conjugate,
    torch._C.DispatchKey.Negative,
    torch._C.DispatchKey.ZeroTensor,
)

_here = threading.local()


@contextmanager
def beneath() -> Iterator[None]:
    """Have the calling thread's operators reach its `OpMode` in another way than as a mode.

    Nothing changes where another mode is on: torch composes as under ours without us, too. Nor
    where `torch.func` differentiates or vectorises, whose levels have modes of their own.
    """
    entered = _enter()
    try:
        yield
    finally:
        if entered:
            _leave()


class Nodes:
    """Has backward nodes that choose by it run with no mode on; those of one thread's operators.

    An operator's node is known once the operator has returned: at the next one, when its thread
    ends, or when a backward begins, in whatever thread.
    """

    def __init__(self) -> None:
        self.noted: list[weakref.ref[torch.Tensor]] = []
        with _adding:
            _all.add(self)

    def made(self, result: Any) -> None:
        """Note what an operator returned whose node is one of them."""
        first = result[0] if isinstance(result, tuple) else result
        if type(first) is torch.Tensor:
            # What is written through a view has its node inside that of what it views.
            base = first._base
            self.noted.append(weakref.ref(first if base is None else base))

    def settle(self) -> None:
        """Hook the nodes of what was noted."""
        _hook(self.noted)
        self.noted.clear()


_all: weakref.WeakSet[Nodes] = weakref.WeakSet()
_adding = threading.Lock()


def settle_all() -> None:
    """Hook the nodes of what all threads noted; each does so again itself, which adds nothing."""
    with _adding:
        everybody = list(_all)
    for nodes in everybody:
        _hook(list(nodes.noted))


def _hook(noted: Iterable[weakref.ref[torch.Tensor]]) -> None:
    for result in noted:
        tensor = result()
        node = None if tensor is None else tensor.grad_fn
        if node is not None:
            node.register_prehook(_before)
            node.register_hook(_after)


def _before(_: Any) -> None:
    # The mode is that of the thread that runs the node, which need not be the one that made it.
    # Where the node fails autograd itself gives the thread back the mode.
    if not torch.compiler.is_compiling():
        _enter()


def _after(*_: Any) -> None:
    if torch.compiler.is_compiling():
        return
    key = _key()
    if key is not None and torch._C._dispatch_tls_is_dispatch_key_included(key):
        _leave()


def chooses(schema: Any) -> bool:
    """Whether an operator's backward node is one that chooses a formula by whether a mode is on."""
    namespace, _, overload = _overload(schema).partition("::")
    return namespace == "aten" and overload in _CHOOSING


def caller_of(func: Any, schema: Any) -> Callable[..., Any]:
    """What runs an operator so that it computes with lazy views what it does with no mode on.

    The operator itself, unless it is made of others, to which it may give views of what it has; for
    those some tenths of a microsecond more, where they are given no complex numbers.
    """
    if not _composed(schema):
        return func  # type: ignore[no-any-return]
    # These make complex numbers of others.
    always = schema.name.startswith("aten::fft_")
    excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
    exclude = torch._C._dispatch_tls_set_dispatch_key_excluded

    def call(*args: Any, **kwargs: Any) -> Any:
        if not (always or _complex(args) or _complex(kwargs.values())):
            return func(*args, **kwargs)
        keys = [key for key in _LAZY if excluded(key)]
        for key in keys:
            exclude(key, False)
        try:
            return func(*args, **kwargs)
        finally:
            for key in keys:
                exclude(key, True)

    return call


def _composed(schema: Any) -> bool:
    namespace, _, base = schema.name.partition("::")
    if namespace != "aten" or base.startswith(_CONJUGATING):
        return True
    overload = _overload(schema)
    # Sizes that are symbols are asked of operators that the dispatcher does not know.
    return torch._C._dispatch_has_kernel(overload) and bool(
        torch._C._dispatch_has_kernel_for_dispatch_key(overload, "CompositeImplicitAutograd")
    )


def _overload(schema: Any) -> str:
    name: str = schema.name
    return f"{name}.{schema.overload_name}" if schema.overload_name else name


def _complex(values: Iterable[Any]) -> bool:
    return any(isinstance(value, torch.Tensor) and value.is_complex() for value in values)


def _seen(func: Any, *args: Any, **kwargs: Any) -> Any:
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(_key())):
        return _here.mode.__torch_dispatch__(func, (), args, kwargs)


@functools.cache
def _key() -> Any:
    """The key, registered for the rest of the process; None where others have them all."""
    for name in _UNUSED:
        key = torch._C._parse_dispatch_key(name)
        if key is None or torch._C._dispatch_has_backend_fallback(key) or _counts(key):
            continue
        library = torch.library.Library("_", "IMPL")  # type: ignore[no-untyped-call]
        library.fallback(_seen, name)  # type: ignore[no-untyped-call]
        _libraries.append(library)
        return key
    return None


_libraries: list[torch.library.Library] = []


def _counts(key: Any) -> bool:
    """Whether torch takes a thread that runs with the key for one with a mode."""
    with engine.unseen():
        plain = torch.empty(0)
        with torch._C._IncludeDispatchKeyGuard(key):
            return bool(torch._C._dispatch_isTensorSubclassLike(plain))


def _enter() -> bool:
    """Take the thread's mode off, if it is one of ours and alone; False where nothing is done."""
    if (
        torch._C._len_torch_dispatch_stack() != 1
        or torch._C._functorch.peek_interpreter_stack() is not None
    ):
        return False
    mode = torch._C._get_dispatch_stack_at(0)
    if not isinstance(getattr(mode, "nodes", None), Nodes):
        return False
    key = _key()
    if key is None:
        return False
    torch._C._pop_torch_dispatch_stack(None)
    _here.mode = mode
    torch._C._dispatch_tls_set_dispatch_key_included(key, True)
    return True


def _leave() -> None:
    torch._C._dispatch_tls_set_dispatch_key_included(_key(), False)
    torch._C._push_on_torch_dispatch_stack(_here.mode)

"""What an engine needs to know of a tensor or array: where its elements are, and of what dtype."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from repro_audit.engine import choice, cuda_graphs
from repro_audit.engine.tags import TAGS
from repro_audit.errors import UnsupportedTensorError

if TYPE_CHECKING:
    import numpy as np
    import torch


# DLPack's number of the CPU.
_HOST = 1


@dataclass(frozen=True, slots=True)
class View:
    """Strided elements in this process's memory; strides are in elements and may be 0 or negative.

    `owner` keeps the memory alive for as long as the view is.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    itemsize: int
    dtype: str
    owner: object

    @property
    def tag(self) -> int:
        """The dtype's tag."""
        return TAGS[self.dtype]

    @property
    def numel(self) -> int:
        """Number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes of the stream, whatever the strides."""
        return self.numel * self.itemsize

    @property
    def contiguous(self) -> bool:
        """True where the stream is the memory itself."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size == 0:
                return True
            if size != 1:
                if stride != expected:
                    return False
                expected *= size
        return True

    def row(self, dim: int, index: int) -> View:
        """The slice at `index` of dimension `dim`, without that dimension."""
        return View(
            self.address + index * self.strides[dim] * self.itemsize,
            self.shape[:dim] + self.shape[dim + 1 :],
            self.strides[:dim] + self.strides[dim + 1 :],
            self.itemsize,
            self.dtype,
            self.owner,
        )


def _extent(view: View) -> tuple[int, int]:
    """The addresses of the view's first byte in memory and of the one behind its last."""
    low = high = 0
    for size, stride in zip(view.shape, view.strides, strict=True):
        low, high = low + min(0, (size - 1) * stride), high + max(0, (size - 1) * stride)
    return view.address + low * view.itemsize, view.address + (high + 1) * view.itemsize


def _check_memory(view: View, what: str) -> None:
    """Raise UnsupportedTensorError where memory that another library owns is gone."""
    if view.numel == 0:
        return
    start, end = _extent(view)
    if not choice.engine().readable(start, end - start):
        raise _refuse(
            f"{what} whose memory was freed, or whose file was cut,",
            "Fingerprint it before the mapping is closed, or a copy of it.",
        )


def _refuse(what: str, way_out: str) -> UnsupportedTensorError:
    return UnsupportedTensorError(f"{what} has no plain memory to fingerprint. {way_out}")


def _check_tensor(t: torch.Tensor) -> None:
    """Raise UnsupportedTensorError, with the way out, for a tensor without plain strided memory."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    if isinstance(t, FakeTensor):
        raise _refuse("A fake tensor", "Fingerprint the real tensor, outside FakeTensorMode.")
    if t.is_meta:
        raise _refuse("A tensor on the meta device", "Materialise it first (`to_empty`).")
    if t.is_nested:
        raise _refuse("A nested tensor", "Fingerprint `t.unbind()`, or `t.values()` and offsets.")
    if t.is_quantized:
        raise _refuse(
            "A quantized tensor", "Fingerprint `t.int_repr()` with its scale and zero point."
        )
    if t.layout is not torch.strided:
        raise _refuse(
            f"A tensor of layout {t.layout}",
            "Fingerprint its parts (`t.indices()`, `t.values()`), or `t.to_dense()`.",
        )
    if dtype_name(t) not in TAGS:
        raise _refuse(
            f"A tensor of dtype {t.dtype}", "Fingerprint `t.view(torch.uint8)`, where that works."
        )
    if not (t.is_cpu or t.is_meta):
        cuda_graphs.refuse()


@functools.cache
def _transforms() -> Any:
    """What has functorch's transforms see operations."""
    import torch

    keys = torch._C.DispatchKey
    front = torch._C.DispatchKeySet(keys.FuncTorchDynamicLayerFrontMode)
    return front | torch._C.DispatchKeySet(keys.FuncTorchDynamicLayerBackMode)


@contextmanager
def unseen() -> Iterator[None]:
    """Torch's operations within are not shown to the program's modes, subclasses and transforms
    (`torch.func.grad`, which forbids to write to what it was not given).
    """
    import torch
    from torch.utils._python_dispatch import _disable_current_modes

    with (
        torch._C.DisableTorchFunction(),
        _disable_current_modes(),
        torch._C._ExcludeDispatchKeyGuard(_transforms()),
        torch.no_grad(),
    ):
        yield


def dtype_name(t: torch.Tensor) -> str:
    """The canonical name of a tensor's dtype."""
    return str(t.dtype).removeprefix("torch.")


def resolved(t: torch.Tensor) -> torch.Tensor:
    """A dense tensor with what it shows as its memory, where it is, outside autograd.

    Raises UnsupportedTensorError as `of_tensor` does.
    """
    with unseen():
        return _checked(t)


def fetched(t: torch.Tensor) -> torch.Tensor:
    """The elements of a dense tensor in their order, on the host; a copy only where need be.

    Waits for the tensor's device. Raises as `resolved` does.
    """
    import torch

    with unseen():
        t = _checked(t)
        try:
            return _copied(t).contiguous()
        except torch.OutOfMemoryError as error:
            raise without_room(t) from error


def _checked(t: torch.Tensor) -> torch.Tensor:
    import torch

    _check_tensor(t)
    try:
        return _resolved(t.detach())
    except torch.OutOfMemoryError as error:
        raise without_room(t) from error
    except (RuntimeError, NotImplementedError) as error:
        raise _without_storage(t) from error


def _resolved(t: torch.Tensor) -> torch.Tensor:
    import torch

    if t.is_conj():
        t = t.resolve_conj()
    if t.is_neg():
        t = t.resolve_neg()
    if t._is_zerotensor():
        t = torch.zeros(t.shape, dtype=t.dtype, device=t.device)
    if t.numel():
        _check_storage(t)
    return t


def _check_storage(t: torch.Tensor) -> None:
    """Raise UnsupportedTensorError for a tensor whose elements do not lie in its storage.

    A kernel that read them would end what the program does on its device.
    """
    stored, kind = t.untyped_storage().nbytes(), f"A {type(t).__name__}"
    if not stored:
        raise _refuse(
            f"{kind} whose storage is empty or freed", "Fingerprint it while its memory is there."
        )
    if not t.data_ptr():  # a subclass that wraps other tensors: its storage has a size alone
        raise _without_storage(t)
    reach = sum((size - 1) * step for size, step in zip(t.shape, t.stride(), strict=True))
    if (t.storage_offset() + reach + 1) * t.itemsize > stored:
        raise _refuse(
            f"{kind} that reaches beyond its storage of {stored} bytes",
            "Its storage was shrunk (`resize_`): fingerprint it before.",
        )


def _without_storage(t: torch.Tensor) -> UnsupportedTensorError:
    return _refuse(
        f"A {type(t).__name__} without storage", "Fingerprint the tensors that it wraps."
    )


def _copied(t: torch.Tensor) -> torch.Tensor:
    if t.is_cpu:
        return t
    with cuda_graphs.aside():
        return t.cpu()


def without_room(t: torch.Tensor) -> UnsupportedTensorError:
    """What to say where reading a tensor takes memory that its device has no more of."""
    return UnsupportedTensorError(
        f"No memory is left on {t.device} for what it takes to read a tensor. Give the program a "
        f"smaller batch, or set {choice.VARIABLE}=portable to fingerprint on the host."
    )


def of_tensor(t: torch.Tensor) -> View:
    """View of a dense tensor, on the host: other devices' tensors are copied there.

    Conjugate and negative views are resolved to what they show. Records no autograd. Raises
    UnsupportedTensorError for sparse, nested, quantized, meta and fake tensors, and for those
    that have no storage (wrapper subclasses, functorch's, freed ones).
    """
    import torch

    # A subclass or a mode is not to see, or change, what is asked of a tensor here.
    with unseen():
        _check_tensor(t)
        try:
            host = _resolved(_copied(t.detach()))
            address = host.data_ptr()
            storage = host.untyped_storage()
        except torch.OutOfMemoryError as error:
            raise without_room(t) from error
        except (RuntimeError, NotImplementedError) as error:
            raise _without_storage(t) from error
        view = View(
            address,
            tuple(host.shape),
            tuple(host.stride()),
            host.itemsize,
            dtype_name(host),
            host,
        )
        if view.nbytes >= 1 << 63:
            raise UnsupportedTensorError(
                f"A tensor of shape {view.shape} has 2^63 bytes or more. Fingerprint what it was "
                "expanded from."
            )
        if not storage.resizable():  # not torch's own memory
            _check_memory(view, f"A {type(t).__name__}")
        return view


def of_array(a: np.ndarray[Any, Any]) -> View:
    """View of a NumPy array; a big-endian one is copied to little-endian.

    Raises UnsupportedTensorError for dtypes that torch has no equal of: structured, object,
    strings, dates, extended precision.
    """
    import numpy as np

    name = a.dtype.name
    if a.dtype.hasobject or a.dtype.fields is not None or name not in TAGS:
        raise UnsupportedTensorError(
            f"An array of dtype {a.dtype} has no digest. Fingerprint its fields, or its bytes "
            "(`a.view(np.uint8)`), one by one."
        )
    if not a.dtype.isnative:
        a = a.astype(a.dtype.newbyteorder("="))
    if any(stride % a.itemsize for stride in a.strides):
        a = np.ascontiguousarray(a)  # a field of a structured array: no whole elements between
    view = View(
        int(a.__array_interface__["data"][0]),
        tuple(int(size) for size in a.shape),
        tuple(stride // a.itemsize for stride in a.strides),
        a.itemsize,
        name,
        a,
    )
    _check_memory(view, "An array")
    return view


class _Exposed:
    """A view, to NumPy an array of bytes without a meaning."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.__array_interface__ = {
            "version": 3,
            "typestr": f"|V{view.itemsize}",
            "shape": view.shape,
            "strides": tuple(stride * view.itemsize for stride in view.strides),
            "data": (view.address, True),
        }


def raw_array(view: View) -> np.ndarray[Any, np.dtype[np.void]]:
    """A view as an array that cannot be written, of elements of which only the size is known."""
    import numpy as np

    return np.asarray(_Exposed(view))


def is_tensor(x: Any) -> bool:
    """Whether `x` is a torch tensor; imports nothing."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_array(x: Any) -> bool:
    """Whether `x` is a NumPy array or number; imports nothing."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(x, numpy.ndarray | numpy.generic)


def is_viewable(x: Any) -> bool:
    """Whether `x` is a tensor or an array: what `of` takes, or refuses for its kind."""
    return isinstance(x, View) or is_tensor(x) or is_array(x) or hasattr(type(x), "__dlpack__")


def shared(x: Any) -> Any:
    """Another library's array as a tensor, through DLPack without a copy; as an array where the
    program has no torch, which knows more dtypes and devices, and the array is the host's.
    """
    try:
        if "torch" in sys.modules or x.__dlpack_device__()[0] != _HOST:
            from torch.utils.dlpack import from_dlpack

            return from_dlpack(x)
        import numpy as np

        return np.from_dlpack(x)
    except (AssertionError, BufferError, RuntimeError, TypeError, ValueError) as error:
        # torch asserts that it was built for the device.
        raise UnsupportedTensorError(
            f"A {type(x).__module__}.{type(x).__qualname__} that cannot be shared through DLPack: "
            f"{error}. Fingerprint a copy of it as a NumPy array or a torch tensor."
        ) from error


def of(x: Any) -> View:
    """View of a tensor, an array or what has `__dlpack__`, or a view itself; TypeError for
    anything else.
    """
    if isinstance(x, View):
        return x
    if is_tensor(x):
        return of_tensor(x)
    if is_array(x):
        import numpy as np

        return of_array(np.asarray(x))
    if hasattr(type(x), "__dlpack__"):
        held = shared(x)
        return of_tensor(held) if is_tensor(held) else of_array(held)
    raise TypeError(
        f"a torch tensor, a NumPy array or what has __dlpack__ is needed, not {type(x).__name__}"
    )

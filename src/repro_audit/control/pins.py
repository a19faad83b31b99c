"""Pins: one condition of a run held fixed, whatever the program sets; an experiment changes one."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from repro_audit.model import CauseClass

# linux/personality.h
_ADDR_NO_RANDOMIZE = 0x0040000
_QUERY = 0xFFFFFFFF
# Finite and huge in float32, float64 and bfloat16, NaN in float16: a read of it cannot pass for a
# result, and it is not the zeros that fresh pages hold.
POISON = 0x7F
# Seconds that a thread is waited for, since it may itself wait for what comes after its start.
_TURN = 2.0
# Where workers of a DataLoader begin: spawned ones are no forks.
_LOADER_WORKERS = "torch.utils.data._utils.worker"


@dataclass(frozen=True, slots=True)
class Pin:
    """What is held (`said`), how a user holds it (`remedy`), and what it proves if that cures.

    `call` is True where it can act on one operator's call by itself. `device` is the kind of device
    that it matters for, None for all. `setting` is the field of a run's manifest that it holds: a
    cure of runs that differ in it proves that difference.
    """

    name: str
    said: str
    remedy: str
    cls: CauseClass
    call: bool = False
    device: str | None = None
    as_is: bool = False
    setting: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


# The cheapest for a program first.
PINS = (
    Pin(
        "deterministic",
        "deterministic algorithms",
        "torch.use_deterministic_algorithms(True)",
        "nondeterministic-op",
        call=True,
        setting="torch.are_deterministic_algorithms_enabled",
        environment={"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
    ),
    Pin(
        "no-cudnn-benchmark",
        "cudnn.benchmark off",
        "torch.backends.cudnn.benchmark = False",
        "kernel-selection",
        call=True,
        device="cuda",
    ),
    Pin(
        "cudnn-deterministic",
        "cudnn.deterministic on",
        "torch.backends.cudnn.deterministic = True",
        "nondeterministic-op",
        call=True,
        device="cuda",
    ),
    Pin(
        "no-tf32",
        "TF32 off",
        'torch.backends.fp32_precision = "ieee"',
        "precision-mode",
        call=True,
        device="cuda",
        environment={"NVIDIA_TF32_OVERRIDE": "0"},
    ),
    Pin(
        "no-reduced-precision",
        "reduced-precision reductions off",
        "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False",
        "precision-mode",
        call=True,
        device="cuda",
    ),
    Pin(
        "math-attention",
        "attention by the math backend",
        "torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)",
        "kernel-selection",
    ),
    Pin(
        "filled-memory",
        "empty memory filled with one pattern",
        "use torch.zeros, or write every element before the first read",
        "uninitialized-memory",
    ),
    Pin(
        "hash-seed",
        "the hash seed fixed",
        "PYTHONHASHSEED=0, or sorted() around what is iterated over",
        "data-order",
        as_is=True,
    ),
    Pin(
        "no-aslr",
        "address randomisation off",
        "iterate over a list or a dict, not over a set of objects: its order goes by addresses",
        "data-order",
    ),
    Pin(
        "seed-torch",
        "torch's generators seeded",
        "torch.manual_seed(0)",
        "unseeded-rng",
        as_is=True,
    ),
    Pin(
        "seed-numpy",
        "NumPy's global generator seeded",
        "numpy.random.seed(0)",
        "unseeded-rng",
        as_is=True,
    ),
    Pin(
        "seed-python",
        "Python's global generator seeded",
        "random.seed(0)",
        "unseeded-rng",
        as_is=True,
    ),
    Pin(
        "fixed-seeds",
        "every generator given a fixed seed, whatever the program gives it",
        "seed with a fixed number: default_rng(0), random.Random(0), Generator().manual_seed(0)",
        "unseeded-rng",
    ),
    Pin(
        "draws-by-line",
        "each line drawing from a generator of its own",
        "make every draw in every run: look for one that is made in some runs only",
        "rng-drift",
    ),
    Pin(
        "loader-order",
        "batches in the order of the sampler",
        "DataLoader(in_order=True)",
        "data-order",
    ),
    Pin(
        "threads-in-turn",
        "each of Python's threads waited for before the next starts",
        "combine what threads compute in a fixed order, by the main thread",
        "parallelism",
    ),
    Pin(
        "one-thread",
        "one thread",
        "torch.set_num_threads(1)",
        "parallelism",
        call=True,
        setting="torch.get_num_threads",
        environment={"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    ),
)
BY_NAME = {pin.name: pin for pin in PINS}


def pinned(names: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a plan by which a run holds these pins."""
    changes: dict[str, Any] = {"pins": names}
    if "filled-memory" in names:
        changes["poison"] = POISON
    if "hash-seed" in names:
        changes["hash_seed"] = 0
    return changes


def hold(names: Iterable[str], torch: Any) -> None:
    """Hold pins on torch's settings from here on: what the program sets after this is ignored."""
    for name in names:
        holder = _HOLDERS.get(name)
        if holder is not None:
            holder(torch)


def without_address_randomisation() -> None:
    """Have this process start again with its memory at the same addresses in every run.

    Linux only. Raises OSError where that is not permitted.
    """
    if not sys.platform.startswith("linux"):
        raise OSError("address randomisation can be turned off on Linux only")
    libc = ctypes.CDLL(None, use_errno=True)
    now = libc.personality(_QUERY)
    if now & _ADDR_NO_RANDOMIZE:
        return
    if libc.personality(now | _ADDR_NO_RANDOMIZE) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _hold_deterministic(torch: Any) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    # It would hide reads of unwritten memory, which is another cause.
    torch.utils.deterministic.fill_uninitialized_memory = False
    ignore(
        torch._C, "_set_deterministic_algorithms", "_set_deterministic_fill_uninitialized_memory"
    )


def hold_threads(torch: Any, count: int = 1) -> None:
    """Hold the number of threads that an operator may use in this process.

    Forks and a loader's workers take their own: the threads of a process are not there in its fork,
    where a worker that may not ask for one waits for the others without end.
    """
    original, pid = torch.set_num_threads, os.getpid()
    original(count)

    def held(*args: Any, **kwargs: Any) -> None:
        caller = sys._getframe(1).f_globals.get("__name__")
        if os.getpid() != pid or caller == _LOADER_WORKERS:
            original(*args, **kwargs)

    torch.set_num_threads = torch._C.set_num_threads = held


def _hold_benchmark(torch: Any) -> None:
    hold_property(torch.backends.cudnn, "benchmark", False)
    ignore(torch._C, "_set_cudnn_benchmark")


def _hold_cudnn(torch: Any) -> None:
    hold_property(torch.backends.cudnn, "deterministic", True)
    ignore(torch._C, "_set_cudnn_deterministic")


def hold_property(backend: Any, name: str, value: bool) -> None:
    """Hold a property of one of `torch.backends`."""
    setattr(backend, name, value)
    # It holds the function that sets it, wherever that is else replaced.
    vars(type(backend))[name].setter = _nothing


def hold_tf32(torch: Any, on: bool = False) -> None:
    """Hold whether float32 products may be computed in TF32."""
    # The old setting goes first: written alone, the new one contradicts it, and reading it raises.
    torch.backends.cudnn.allow_tf32 = on
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.fp32_precision = "tf32" if on else "ieee"
    vars(type(torch.backends.cudnn))["allow_tf32"].setter = _nothing
    ignore(
        torch._C,
        "_set_cublas_allow_tf32",
        "_set_cudnn_allow_tf32",
        "_set_float32_matmul_precision",
        "_set_fp32_precision_setter",
    )


def _hold_reduced(torch: Any) -> None:
    matmul = torch.backends.cuda.matmul
    matmul.allow_fp16_reduced_precision_reduction = False
    matmul.allow_bf16_reduced_precision_reduction = False
    matmul.allow_fp16_accumulation = False
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)
    ignore(
        torch._C,
        "_set_cublas_allow_bf16_reduced_precision_reduction",
        "_set_cublas_allow_fp16_accumulation",
        "_set_cublas_allow_fp16_reduced_precision_reduction",
        "_set_math_sdp_allow_fp16_bf16_reduction",
    )


def _hold_attention(torch: Any) -> None:
    cuda = torch.backends.cuda
    cuda.enable_math_sdp(True)
    cuda.enable_flash_sdp(False)
    cuda.enable_mem_efficient_sdp(False)
    cuda.enable_cudnn_sdp(False)
    ignore(
        torch._C,
        "_set_sdp_use_cudnn",
        "_set_sdp_use_flash",
        "_set_sdp_use_math",
        "_set_sdp_use_mem_efficient",
    )


def _hold_loader_order(torch: Any) -> None:
    loader = importlib.import_module("torch.utils.data").DataLoader
    original = loader.__init__

    def ordered(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, "in_order": True})

    loader.__init__ = ordered


def _hold_turns(torch: Any) -> None:
    pools = ("concurrent.futures.thread", "multiprocessing.pool")
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def starting(self: threading.Thread) -> None:
        start(self)
        # A pool's thread ends with the pool.
        if getattr(vars(self).get("_target"), "__module__", None) not in pools:
            self.join(_TURN)

    def submitting(self: ThreadPoolExecutor, *args: Any, **kwargs: Any) -> Any:
        future = submit(self, *args, **kwargs)
        wait([future], _TURN)
        return future

    threading.Thread.start = starting  # type: ignore[method-assign]
    setattr(ThreadPoolExecutor, "submit", submitting)  # noqa: B010


_HOLDERS: dict[str, Callable[[Any], None]] = {
    "cudnn-deterministic": _hold_cudnn,
    "deterministic": _hold_deterministic,
    "loader-order": _hold_loader_order,
    "math-attention": _hold_attention,
    "no-cudnn-benchmark": _hold_benchmark,
    "no-reduced-precision": _hold_reduced,
    "no-tf32": hold_tf32,
    "one-thread": hold_threads,
    "threads-in-turn": _hold_turns,
}


def ignore(owner: Any, *names: str) -> None:
    """Have functions that set what is held do nothing from here on."""
    for name in names:
        setattr(owner, name, _nothing)


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Stands in for a function that sets what is held."""

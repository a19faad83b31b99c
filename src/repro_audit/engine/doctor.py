"""Is every engine right on this machine? The known answers, on each engine and device there is."""

from __future__ import annotations

import ctypes
import json
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from repro_audit.engine import by_stream, choice, kernels, reference, views
from repro_audit.engine.tags import ITEMSIZES, NAMES, TAGS

if TYPE_CHECKING:
    import torch

_Lanes = Callable[[bytes, int, int], tuple[int, int]]
# Of 8, 16, 32 and 64 bits, floats and integers: one of each kind of kernel.
_COMPARED = ("int8", "float8_e4m3fn", "float16", "bfloat16", "int32", "float32", "float64")


@dataclass(frozen=True, slots=True)
class Check:
    """One engine on one device: how many of the known answers it gave, or why it cannot run.

    `problem` is what it answered wrongly first, or why it is not there; empty where all is right.
    """

    engine: str
    device: str
    used: bool
    present: bool
    right: int
    asked: int
    problem: str

    @property
    def wrong(self) -> bool:
        """Whether it is there and gave a wrong answer, or none."""
        return self.present and self.right < self.asked


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What `repro-audit doctor` says: versions of what matters, and each engine's answers."""

    versions: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether no engine that is there is wrong."""
        return not any(check.wrong for check in self.checks)


def diagnose() -> Diagnosis:
    """Ask every engine and device here for the known answers; about a second for each.

    Leaves the engine in use as it was.
    """
    import torch

    forced = choice.name() if choice.info()["forced"] else None
    used = choice.name()
    checks = []
    try:
        for name in choice.available():
            if name not in kernels.NAMES:
                choice.select(name)
                checks.append(_check(name, "cpu", used == name, _cpu_questions()))
        choice.select(forced)
        for device in _devices(torch):
            chosen = choice.name_for(device.type)
            for name in (*kernels.NAMES, choice.TORCH):
                if name == choice.TORCH or (device.type == "cuda" and not kernels.problem(name)):
                    choice.select(name)
                    asked = _questions_on(device, name)
                    checks.append(_check(name, str(device), chosen == name, asked))
            choice.select(forced)
    finally:
        choice.select(forced)
    for name in kernels.NAMES:
        if not any(check.engine == name for check in checks):
            problem = kernels.problem(name) or "torch sees no CUDA device"
            checks.append(Check(name, "cuda", False, False, 0, 0, problem))
    return Diagnosis(_versions(torch), tuple(checks))


def _versions(torch: Any) -> dict[str, str]:
    import numpy as np

    from repro_audit import __version__

    compiled = kernels.compiled()
    driver = kernels.driver_version()
    return {
        "repro-audit": __version__,
        "digest": str(choice.DIGEST_VERSION),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "machine": f"{platform.machine()}, {sys.byteorder}-endian",
        "cpu features": " ".join(choice.info()["cpu_features"]) or "none that matter here",
        "threads": str(choice.info()["threads"]),
        "cuda kernels": kernels.dotted(compiled.toolkit()) if compiled else "not built",
        "cuda driver": kernels.dotted(driver) if driver else "none",
    }


def _devices(torch: Any) -> list[torch.device]:
    """Every accelerator's devices, as torch sees them."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return []
    return [torch.device(accelerator.type, i) for i in range(torch.accelerator.device_count())]


def _known() -> dict[str, Any]:
    found = resources.files("repro_audit.engine").joinpath("digest_vectors.json")
    answers: dict[str, Any] = json.loads(found.read_text())
    return answers


def _pattern(nbytes: int, modulus: int = 251) -> bytes:
    return bytes(i % modulus for i in range(nbytes))


@dataclass(frozen=True, slots=True)
class _Questions:
    """An engine's answers to the three kinds of question, on bytes."""

    stream_lanes: _Lanes
    multiset_lanes: _Lanes
    ulp: Callable[[bytes, bytes, str], dict[str, Any]]


def _cpu_questions() -> _Questions:
    engine = choice.engine()

    def stream(data: bytes, offset: int, key: int) -> tuple[int, int]:
        held = ctypes.create_string_buffer(data, max(1, len(data)))
        return engine.lanes(ctypes.addressof(held), len(data), offset, key)

    def multiset(data: bytes, itemsize: int, key: int) -> tuple[int, int]:
        held = ctypes.create_string_buffer(data, max(1, len(data)))
        count = len(data) // itemsize
        return engine.multiset(ctypes.addressof(held), (count,), (1,), itemsize, key)

    return _Questions(stream, multiset, _ulp_by(engine))


def _ulp_by(engine: choice.Engine) -> Callable[[bytes, bytes, str], dict[str, Any]]:
    def ulp(a: bytes, b: bytes, dtype: str) -> dict[str, Any]:
        x, y = (ctypes.create_string_buffer(side, len(side)) for side in (a, b))
        count = len(a) // ITEMSIZES[dtype]
        return engine.ulp(
            ctypes.addressof(x), (1,), ctypes.addressof(y), (1,), (count,), TAGS[dtype]
        )

    return ulp


def _questions_on(device: torch.device, name: str) -> _Questions:
    import torch

    from repro_audit.engine import cuda, torch_ops

    def at(data: bytes) -> torch.Tensor:
        held = bytearray(data)
        host = torch.frombuffer(held, dtype=torch.uint8) if held else torch.empty(0).byte()
        return host.to(device)

    def ulp(a: bytes, b: bytes, dtype: str) -> dict[str, Any]:
        if name not in kernels.NAMES:
            return _ulp_by(choice.engine())(a, b, dtype)
        x, y = (at(side).view(getattr(torch, dtype)) for side in (a, b))
        return cuda.ulp(x, y, dtype)

    if name in kernels.NAMES:
        return _Questions(
            lambda data, offset, key: cuda.stream_lanes(at(data), offset, key),
            lambda data, itemsize, key: cuda.multiset_lanes(_elements(at(data), itemsize), key),
            ulp,
        )
    return _Questions(
        lambda data, offset, key: torch_ops.stream_lanes(at(data), offset, key),
        lambda data, itemsize, key: torch_ops.multiset_lanes(at(data), itemsize, key),
        ulp,
    )


def _elements(data: torch.Tensor, itemsize: int) -> torch.Tensor:
    import torch

    kinds = (torch.uint8, torch.int16, torch.int32, torch.int64, torch.complex128)
    return data.view(next(kind for kind in kinds if kind.itemsize == itemsize))


def _answers(ask: _Questions) -> Iterator[tuple[str, bool]]:
    """What was asked, and whether the answer is the known one."""
    known = _known()
    for case in known["cases"]:
        found = ask.stream_lanes(_pattern(case["nbytes"]), case["offset"], int(case["key"], 16))
        right = [f"{lane:016x}" for lane in found] == case["lanes"]
        yield f"the lanes of {case['nbytes']} bytes at {case['offset']}", right
    for case in known["tags"]:
        data = _pattern(case["nbytes"], 2 if NAMES[case["tag"]] == "bool" else 251)
        lanes = ask.stream_lanes(data, 0, 0)
        digest = reference.finalize(*lanes, len(data), case["tag"]).hex()
        yield f"the digest of {NAMES[case['tag']]}", digest == case["digest"]
        lanes = ask.multiset_lanes(data, case["itemsize"], 0)
        right = [f"{lane:016x}" for lane in lanes] == case["multiset_lanes"]
        yield f"the multiset of {NAMES[case['tag']]}", right
    a, b = _pattern(8192), bytearray(_pattern(8192))
    for i in range(0, len(b), 9):
        b[i] ^= 1 << (i % 8)
    expected = _ulp_by(by_stream.of_reference())
    for dtype in _COMPARED:
        right = repr(ask.ulp(a, bytes(b), dtype)) == repr(expected(a, bytes(b), dtype))
        yield f"the ULP divergence of {dtype}", right


def _check(name: str, device: str, used: bool, ask: _Questions) -> Check:
    right = asked = 0
    problem = ""
    try:
        with views.unseen():
            for what, is_right in _answers(ask):
                asked += 1
                right += is_right
                if not is_right and not problem:
                    problem = f"{what} is wrong"
    except Exception as error:  # whatever it is, the others are still to be asked
        asked, problem = asked + 1, f"{type(error).__name__}: {error}"
    return Check(name, device, used, True, right, asked, problem)

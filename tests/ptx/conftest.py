"""The kernels as nvcc and as CuPy's NVRTC compile them, each once for all tests of a process.

Where either is missing its tests are skipped; where `REPRO_AUDIT_REQUIRE` names it (`nvcc`, `cupy`)
they fail instead.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from repro_audit import _engine
from repro_audit.engine import cupy_kernels
from repro_audit.engine.tags import ITEMSIZES, PARTS, TAGS

from .launches import ROOT, Device, Kernels, Nvcc, Nvrtc

WIDTHS = (1, 2, 4, 8, 16)


def _names() -> dict[str, list[str]]:
    """Every kernel that can be asked for, by the file of cuda/src that has it."""
    digest = [f"Pieces<{width}>" for width in WIDTHS]
    digest += [f"Contiguous<{width}>" for width in (1, 2, 4, 16)]
    multiset = [
        (width, source)
        for width in WIDTHS
        for source in sorted(
            {f"Pieces<{width}>", "Pieces<1>", "Contiguous<16>"}
            | {f"Contiguous<{width}>", "Contiguous<1>"}
        )
    ]
    ulp = [
        (dtype, f"Contiguous<{width}>")
        for dtype in TAGS
        if dtype not in PARTS and dtype != "float4_e2m1fn_x2"
        for width in (ITEMSIZES[dtype], 16)
    ]
    rows = [_engine.LAUNCH[each] for each in ("few_rows", "most_rows")]
    return {
        "digest": [
            *(cupy_kernels.stream_kernel(source) for source in digest),
            *(cupy_kernels.table_kernel(each) for each in rows),
        ],
        "multiset": [cupy_kernels.multiset_kernel(*each) for each in multiset],
        "sample": [cupy_kernels.sample_kernel(width) for width in WIDTHS],
        "ulp": [cupy_kernels.ulp_kernel(*each) for each in ulp],
    }


@functools.cache
def _kernels(compiler: str, architecture: str, only: frozenset[str], shared: Path) -> Kernels:
    """Those of some files, or, where these are dtypes, of ULP divergence between aligned ones."""
    required = os.environ.get("REPRO_AUDIT_REQUIRE", "").split(",")
    missing = shutil.which("nvcc") is None if compiler == "nvcc" else find_spec("cupy") is None
    if missing:
        if compiler in required:
            pytest.fail(f"{compiler} is not installed")
        pytest.skip(f"{compiler} is not installed")
    names = {file: each for file, each in _names().items() if file in only} or {
        "ulp": [cupy_kernels.ulp_kernel(dtype, "Contiguous<16>") for dtype in sorted(only)]
    }
    return Nvcc(architecture, names, shared) if compiler == "nvcc" else Nvrtc(architecture, names)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of all workers of these tests' run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(params=["nvcc", "cupy"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, shared: Path) -> Device:
    """A device with the kernels that a compiler makes for compute capability 9.0."""
    return Device(_kernels(request.param, "90", frozenset(_names()), shared), monkeypatch)


@pytest.fixture
def other_device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, shared: Path
) -> Device:
    """One with some of what a compiler makes for another: (compiler, capability, what)."""
    compiler, architecture, only = request.param
    return Device(_kernels(compiler, architecture, frozenset(only), shared), monkeypatch)


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    return json.loads((ROOT / "tests/vectors/digest_vectors.json").read_text())

"""Memory that is gone or too small is an error with a way out, never a crash."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from repro_audit.engine import compare, fingerprint, tensor_digest, tensor_digests
from repro_audit.errors import UnsupportedTensorError

LOOKS: list[Callable[[torch.Tensor], object]] = [
    fingerprint,
    tensor_digest,
    lambda t: tensor_digests([t]),
    lambda t: compare(t, t),
]


@pytest.fixture
def mapped(tmp_path: Path) -> tuple[Path, mmap.mmap, torch.Tensor]:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 256)
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0)
    return path, mapping, torch.frombuffer(mapping, dtype=torch.float32)


@pytest.mark.parametrize("look", LOOKS)
def test_a_closed_mapping(
    each_engine: str,
    mapped: tuple[Path, mmap.mmap, torch.Tensor],
    look: Callable[[torch.Tensor], object],
) -> None:
    _, mapping, t = mapped
    look(t)
    mapping.close()
    with pytest.raises(UnsupportedTensorError, match="memory was freed"):
        look(t)
    with pytest.raises(UnsupportedTensorError, match="memory was freed"):
        look(t.view(128, 128).t())


@pytest.mark.parametrize("look", LOOKS)
def test_a_file_cut_under_its_mapping(
    each_engine: str,
    mapped: tuple[Path, mmap.mmap, torch.Tensor],
    look: Callable[[torch.Tensor], object],
) -> None:
    path, _, t = mapped
    with path.open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(UnsupportedTensorError, match="file was cut"):
        look(t)
    look(t[:1000])


def test_an_array_over_a_cut_file(each_engine: str, tmp_path: Path) -> None:
    a = np.memmap(tmp_path / "a", np.float32, "w+", shape=(4096,))
    fingerprint(a)
    with (tmp_path / "a").open("r+b") as file:
        file.truncate(4096)
    with pytest.raises(UnsupportedTensorError, match="file was cut"):
        fingerprint(a)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    "make",
    [
        lambda t: t,
        lambda t: t.view(20, 50).t(),
        lambda t: t[600:],
        lambda t: t[1:2].expand(500),
        lambda t: t.view(20, 50)[:, 3:5],
    ],
)
def test_a_shrunk_storage(
    each_engine: str,
    look: Callable[[torch.Tensor], object],
    make: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    base = torch.arange(1000.0)
    t = make(base)
    expected = fingerprint(t.clone())
    assert fingerprint(t) == expected
    assert tensor_digest(t).hex() == expected.digest
    base.untyped_storage().resize_(4)
    with pytest.raises(UnsupportedTensorError, match=r"reaches beyond its storage of 4 bytes"):
        look(t)


def test_read_only_and_overlapping_memory(each_engine: str) -> None:
    frozen = np.frombuffer(bytes(range(200)), np.uint8)
    assert fingerprint(frozen) == fingerprint(frozen.copy())
    overlapping = torch.arange(50.0).as_strided((9, 8), (3, 2))
    assert fingerprint(overlapping) == fingerprint(overlapping.clone())
    turned = np.lib.stride_tricks.as_strided(np.arange(30), (5, 4), (16, 8))
    assert fingerprint(turned) == fingerprint(turned.copy())


@pytest.mark.parametrize("look", LOOKS)
def test_a_shape_beyond_63_bits(each_engine: str, look: Callable[[torch.Tensor], object]) -> None:
    t = torch.zeros(1, 1, dtype=torch.float64).expand(1 << 40, 1 << 20)
    with pytest.raises(UnsupportedTensorError, match=r"shape .* has 2\^63 bytes or more"):
        look(t)

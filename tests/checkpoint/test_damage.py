"""Files that are damaged, hostile or no checkpoints end in one message."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from repro_audit.checkpoint import is_checkpoint, open_checkpoint
from repro_audit.errors import CheckpointError, UsageError

DAMAGED = [
    ("no checkpoint", b"hello", "no checkpoint of a known kind"),
    ("empty", b"", "no checkpoint of a known kind"),
    ("no zip", b"PK\x03\x04hello", "damaged"),
    ("a header of another file", b"\x02\0\0\0\0\0\0\0{]", "a.pt is damaged, or of a kind"),
    ("a cut header", b"\xff\0\0\0\0\0\0\0{}", "lies beyond the end"),
    ("other JSON", b"{}", "no fingerprints"),
    ("no JSON", b"{", "a.pt is damaged, or of a kind"),
    ("NumPy's, cut", b"\x93NUMPY\x01\x00", "a.pt is damaged, or of a kind"),
]


@pytest.mark.parametrize(
    ("data", "said"), [case[1:] for case in DAMAGED], ids=[c[0] for c in DAMAGED]
)
def test_what_is_no_checkpoint(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_checkpoint(path)
    assert caught.value.exit_code == 4
    assert str(path) in str(caught.value)


def test_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no checkpoint .*absent"):
        open_checkpoint(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError, match="has no checkpoint in it"):
        open_checkpoint(tmp_path)
    assert not is_checkpoint(tmp_path)
    assert not is_checkpoint(tmp_path / "absent.pt")


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.npz"])
def test_a_file_that_is_cut_or_damaged_is_refused_or_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    held = {"a": torch.arange(100.0), "b": torch.ones(3, 4)}
    if name == "a.pt":
        torch.save(held, path)
    elif name == "a.npz":
        np.savez(path, **{key: value.numpy() for key, value in held.items()})
    else:
        save_file(held, path)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 23):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            _ = open_checkpoint(path).fingerprints
    for at in range(0, len(whole), 3):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        with contextlib.suppress(CheckpointError):
            _ = open_checkpoint(path).fingerprints


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 16]}})
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(16))
    with pytest.raises(CheckpointError, match="does not fit into"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02" + b"(" * 1_000_000 + b"t" * 1_000_000 + b".",  # nested without end
        b"\x80\x02}" + b")" + b"\x85" * 1_000_000 + b"K\x01s.",  # a key that is
        b"\x80\x02)q\x00" + b"(h\x00h\x00tq\x00" * 60 + b".",
        b"\x80\x02]q\x00" + b"(h\x00h\x00lq\x00" * 60 + b".",  # itself, twice, sixty times over
        b"\x80\x02c_codecs\nencode\nX\x00\x00\x10\x00" + b"a" * (1 << 20),
    ],
    ids=["deep", "deep key", "tuples", "lists", "cut"],
)
def test_a_hostile_pickle_ends_in_a_message(tmp_path: Path, pickled: bytes) -> None:
    (tmp_path / "a.pkl").write_bytes(pickled)
    with pytest.raises(CheckpointError, match=r"a\.pkl"):
        open_checkpoint(tmp_path / "a.pkl")


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="it is no file"):
        open_checkpoint(tmp_path / "a.pt")


def test_names_that_have_no_bytes(tmp_path: Path) -> None:
    torch.save({"\ud800": torch.ones(1), "n": "\ud800"}, tmp_path / "a.pt")
    found = open_checkpoint(tmp_path / "a.pt")
    assert list(found.fingerprints) == ["\\ud800"]
    assert found.values == {"n": "\\ud800"}
    assert len(found.fingerprints.composite) == 32

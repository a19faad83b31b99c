"""Checkpoints of every kind: the fingerprints that the tensors have in memory, without torch."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file

import repro_audit as ra
from repro_audit.checkpoint import is_checkpoint, open_checkpoint
from repro_audit.engine import TAGS
from repro_audit.errors import CheckpointError

# What no file of torch.save's, or none of safetensors', has.
NEVER = {"complex32", "float4_e2m1fn_x2"}
NOT_IN_SAFETENSORS = {"complex32", "complex128", "float4_e2m1fn_x2"}


def tensor(dtype: str, shape: tuple[int, ...] = (3, 5)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(TAGS[dtype])
    kind = getattr(torch, dtype)
    if dtype == "bool":
        return torch.randint(0, 2, shape, generator=generator).bool()
    size = torch.empty((), dtype=kind).element_size()
    data = torch.randint(0, 100, (*shape, size), generator=generator, dtype=torch.uint8)
    return data.view(kind).reshape(shape)


def state(leave_out: set[str]) -> dict[str, torch.Tensor]:
    found = {dtype: tensor(dtype) for dtype in TAGS if dtype not in leave_out}
    return found | {"scalar": torch.tensor(1.5), "empty": torch.empty(0, 4)}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.last = torch.nn.Linear(4, 2, bias=False)
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.register_buffer("kept", torch.ones(3))


@pytest.fixture
def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    net.last(net.norm(net.first(torch.ones(2, 3)))).sum().backward()
    optimizer.step()
    return net, optimizer


def same(path: Path, expected: Any) -> None:
    found = open_checkpoint(path).fingerprints
    assert dict(found) == dict(ra.fingerprint(expected))
    assert found.composite == ra.fingerprint(expected).composite


def test_torch_file_of_every_dtype(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(state(NEVER), path)
    same(path, state(NEVER))


def test_safetensors_of_every_dtype(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(state(NOT_IN_SAFETENSORS), path, metadata={"of": "a test"})
    same(path, state(NOT_IN_SAFETENSORS))
    assert open_checkpoint(path).metadata == {"of": "a test"}


def test_numpy_files(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.ones((2, 3), np.int8))}
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    np.save(tmp_path / "c.npy", arrays["b"])
    same(tmp_path / "a.npz", arrays)
    same(tmp_path / "b.npz", arrays)
    same(tmp_path / "c.npy", {"array": arrays["b"]})


def test_what_a_training_script_saves(
    tmp_path: Path, trained: tuple[torch.nn.Module, torch.optim.Optimizer]
) -> None:
    net, optimizer = trained
    saved = {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "array": np.arange(6, dtype=">i4").reshape(2, 3).T,
        "number": np.float32(3),
        "epoch": 4,
        "best": float("inf"),
        "names": ["a", "b"],
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "seen": {2, 1},
        "note": b"abc",
    }
    torch.save(saved, tmp_path / "a.pt")
    same(tmp_path / "a.pt", saved)
    values = open_checkpoint(tmp_path / "a.pt").values
    assert values["epoch"] == 4
    assert values["best"] == "<inf>"
    assert values["optimizer.param_groups.0.lr"] == 0.1
    assert values["optimizer.param_groups.0.foreach"] is None
    assert (values["names.1"], values["seen"], values["numpy.0"]) == ("b", "<{1, 2}>", "MT19937")
    assert (values["device"], values["dtype"]) == ("<torch.device>", "<torch.float16>")
    assert values["note"] == "<3 bytes, BLAKE2b cf4ab791c62b8d2b2109c90275287816>"


def test_views_parameters_and_subclasses(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    complex_ = torch.complex(base, base + 1)
    saved = {
        "rows": base[1:3],
        "columns": base[:, ::2],
        "turned": base.t(),
        "wide": base[0].expand(3, 6),
        "parameter": torch.nn.Parameter(base),
        "conjugate": complex_.conj(),
        "negative": torch._neg_view(base + 3),
        "buffer": torch.nn.Buffer(base),
    }
    torch.save(saved, tmp_path / "a.pt")
    same(tmp_path / "a.pt", saved)


def test_a_module_that_was_saved_whole(
    tmp_path: Path, trained: tuple[torch.nn.Module, torch.optim.Optimizer]
) -> None:
    torch.save(trained[0], tmp_path / "a.pt")
    same(tmp_path / "a.pt", trained[0])


# torch 2.11 warns even where it is told.
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_of_tensors_of_other_kinds_all_that_they_are_made_of(tmp_path: Path) -> None:
    places = torch.tensor([[0, 1], [1, 2]])
    for name, held in (("a.pt", [1.0, 2.0]), ("b.pt", [1.0, 3.0])):
        sparse = torch.sparse_coo_tensor(places, torch.tensor(held), (3, 3), check_invariants=True)
        torch.save({"sparse": sparse}, tmp_path / name)
    torch.save({"meta": torch.empty(3, device="meta")}, tmp_path / "c.pt")
    one, other = (open_checkpoint(tmp_path / name) for name in ("a.pt", "b.pt"))
    assert len(one.fingerprints) == 2  # indices and values
    assert one.fingerprints != other.fingerprints
    meta = open_checkpoint(tmp_path / "c.pt")
    assert not meta.tensors
    assert 3 in meta.values.values()


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"a": torch.ones(2), "b": Harmful()}, tmp_path / "a.pt")
    found = open_checkpoint(tmp_path / "a.pt")
    assert list(found.fingerprints) == ["a"]
    assert not (tmp_path / "harm").exists()
    assert str(found.values["b"]).endswith("mkdir>")


def test_a_value_that_holds_itself(tmp_path: Path) -> None:
    held: dict[str, Any] = {"a": torch.ones(2)}
    held["self"] = held
    torch.save(held, tmp_path / "a.pt")
    assert open_checkpoint(tmp_path / "a.pt").values == {"self": "<what it is in>"}


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    whole = state(NOT_IN_SAFETENSORS)
    names = list(whole)
    parts = {"model-1.safetensors": names[:5], "model-2.safetensors": names[5:]}
    for file, held in parts.items():
        save_file({name: whole[name] for name in held}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    named = {name: file for file, held in parts.items() for name in held}
    index.write_text(json.dumps({"metadata": {}, "weight_map": named}))
    same(index, whole)
    same(tmp_path, whole)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*model-2"):
        open_checkpoint(index)
    index.write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match="another directory"):
        open_checkpoint(index)


def test_a_directory_of_several(
    tmp_path: Path, trained: tuple[torch.nn.Module, torch.optim.Optimizer]
) -> None:
    net, optimizer = trained
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    (tmp_path / "inner").mkdir()
    torch.save({"seed": torch.ones(1)}, tmp_path / "inner/rng.pth")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache/other.pt").write_text("none")
    found = open_checkpoint(tmp_path)
    assert found.fingerprints["model/first.weight"] == ra.fingerprint(net.first.weight)
    assert "optimizer/state.0.exp_avg" in found.fingerprints
    assert "inner/rng/seed" in found.fingerprints
    assert found.values["optimizer/param_groups.0.lr"] == 0.1
    torch.save(net.state_dict(), tmp_path / "model.pt")
    assert {"model.pt/kept", "model.safetensors/kept"} <= open_checkpoint(
        tmp_path
    ).fingerprints.keys()


SHARDED = """
import os
import sys
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

rank, rendezvous, place = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
whole = torch.arange(70.0).reshape(7, 10)
state = {
    "rows": distribute_tensor(whole, mesh, [Shard(0)]),
    "columns": distribute_tensor(whole.to(torch.bfloat16), mesh, [Shard(1)]),
    "plain": whole,
    "step": 3,
    "held": {"nested": torch.ones(2)},
}
dcp.save(state, checkpoint_id=place)
dist.barrier()
# At once: as Python ends, a thread of torch's that still runs now and then aborts it.
os._exit(0)
"""


def test_parts_of_several_ranks_are_one_tensor(tmp_path: Path) -> None:
    place = tmp_path / "sharded"
    words = [sys.executable, "-W", "ignore", "-c", SHARDED]
    ranks = [
        subprocess.Popen([*words, str(rank), str(tmp_path / "meet"), str(place)])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    whole = torch.arange(70.0).reshape(7, 10)
    found = open_checkpoint(place)
    assert len(found.tensors["rows"].parts) == 2
    expected = {
        "rows": whole,
        "columns": whole.to(torch.bfloat16),
        "plain": whole,
        "held": {"nested": torch.ones(2)},
    }
    assert dict(found.fingerprints) == dict(ra.fingerprint(expected))
    assert found.values == {"step": 3}
    next(place.glob("__1_*")).unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*__1_"):
        _ = open_checkpoint(place).fingerprints


def test_files_of_old_and_other_kinds(tmp_path: Path) -> None:
    torch.save(torch.ones(2), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before version 1.6"):
        open_checkpoint(tmp_path / "old.pt")
    assert is_checkpoint(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(CheckpointError, match="no checkpoint of a known kind"):
        open_checkpoint(tmp_path / "a.zip")
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    with pytest.raises(CheckpointError, match="Object arrays"):
        open_checkpoint(tmp_path / "objects.npy")


def test_a_storage_that_was_compressed(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(100.0)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    same(tmp_path / "b.pt", {"a": torch.arange(100.0)})


def test_torch_is_not_imported(tmp_path: Path) -> None:
    torch.save(state(NEVER), tmp_path / "a.pt")
    script = (
        "import sys\nfrom pathlib import Path\nfrom repro_audit.checkpoint import open_checkpoint\n"
        f"print(open_checkpoint(Path({str(tmp_path / 'a.pt')!r})).fingerprints.composite)\n"
        "assert 'torch' not in sys.modules\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == ra.fingerprint(state(NEVER)).composite


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_and_pickles_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    held = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.ones((2, 3))), "n": 1}
    torch.save(held, tmp_path / "a.pt", pickle_protocol=protocol)
    same(tmp_path / "a.pt", held)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(held, protocol))
    same(tmp_path / "a.pkl", held)
    turned = {"t": np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2)}
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(turned, protocol))
    same(tmp_path / "b.pkl", turned)


def test_files_of_several_values_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(1) + pickle.dumps(2))
    with pytest.raises(CheckpointError, match="several pickles"):
        open_checkpoint(tmp_path / "a.pkl")
    with (tmp_path / "a.npy").open("wb") as file:
        np.save(file, np.ones(2))
        np.save(file, np.ones(2))
    with pytest.raises(CheckpointError, match="several of them"):
        open_checkpoint(tmp_path / "a.npy")


def test_a_file_of_a_directory_that_is_not_read_may_be_left_out(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    torch.save({"w": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "faiss.index.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"old\.pth.*--ignore 'old\.pth'"):
        open_checkpoint(tmp_path)
    found = open_checkpoint(tmp_path, ["old.*"])
    assert list(found.fingerprints) == ["w"]
    assert found.unread == ("faiss.index.json",)


def test_files_of_a_directory_by_what_is_in_them(tmp_path: Path) -> None:
    for folder in ("unet", "vae"):
        (tmp_path / folder).mkdir()
        save_file({"w": torch.full((2,), float(len(folder)))}, tmp_path / folder / "m.safetensors")
        torch.save({"w": torch.ones(3)}, tmp_path / folder / "m.bin")
    torch.save({"seed": torch.ones(1)}, tmp_path / "random_states_0.pkl")
    torch.save({"n": torch.ones(1)}, tmp_path / "last.pth.tar")
    (tmp_path / "train.bin").write_bytes(bytes(range(200)))
    (tmp_path / "empty.bin").touch()
    (tmp_path / "trainer_state.json").write_text("{}")
    found = open_checkpoint(tmp_path)
    assert set(found.fingerprints) == {
        *(f"{folder}/m.{kind}/w" for folder in ("unet", "vae") for kind in ("bin", "safetensors")),
        "random_states_0/seed",
        "last/n",
    }
    assert found.unread == ("empty.bin", "train.bin", "trainer_state.json")


def test_an_index_of_what_is_not_there(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "m.safetensors")
    index = tmp_path / "m.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m.safetensors", "b": "m.safetensors"}}))
    with pytest.raises(CheckpointError, match="names b, which no shard has"):
        open_checkpoint(index)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
def test_a_part_of_a_distributed_checkpoint_is_none(tmp_path: Path) -> None:
    dcp.save(
        {"a": torch.ones(2), "b": torch.zeros(2)}, checkpoint_id=tmp_path / "whole", no_dist=True
    )
    assert len(open_checkpoint(tmp_path / "whole").fingerprints) == 2
    with pytest.raises(CheckpointError, match="name the directory"):
        open_checkpoint(next((tmp_path / "whole").glob("*.distcp")))


def test_a_program_is_no_checkpoint(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="TorchScript"):
        open_checkpoint(tmp_path / "a.pt")

"""Trainings of Lightning's Trainer, recorded as its users would."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import repro_audit as ra
from repro_audit.audit.comparing import compare_traces

RANKS = 2
Started = Callable[..., list[dict[str, Any]]]
Closing = Callable[[Path], dict[str, Any]]


def module(pl: Any, *, differs: int | None = None, fails: int | None = None) -> Any:
    """A module whose loss is another, or that raises, at that call of its training step."""

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 1))
            self.calls = 0

        def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
            self.calls += 1
            if self.calls == fails:
                raise ValueError("no")
            loss = self.net(batch[0]).square().mean()
            return loss * 1.0001 if self.calls == differs else loss

        def validation_step(self, batch: list[torch.Tensor], index: int) -> None:
            self.net(batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.1)

    return Module()


class Trainings:
    """Trainings of four steps of two batches each, recorded in a folder by their names."""

    def __init__(self, pl: Any, folder: Path, rank: int | None) -> None:
        self.pl = pl
        self.folder = folder
        self.ranks = 1 if rank is None else RANKS

    def train(
        self,
        name: str | None = None,
        *,
        callbacks: Any = (),
        differs: int | None = None,
        fails: int | None = None,
        **options: Any,
    ) -> list[object]:
        """What is left in the end."""
        from repro_audit.integrations.lightning import RecordingCallback

        self.pl.seed_everything(0, verbose=False)
        trained = module(self.pl, differs=differs, fails=fails)
        data = TensorDataset(torch.randn(16 * self.ranks, 4))
        recording = [RecordingCallback(self.folder / f"{name}.audit", **options)] if name else []
        trainer = self.pl.Trainer(
            max_epochs=2,
            accumulate_grad_batches=2,
            accelerator="cpu",
            devices=self.ranks,
            strategy="auto" if self.ranks == 1 else "ddp",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[*callbacks, *recording],
        )
        trainer.fit(trained, DataLoader(data, 4, shuffle=True), DataLoader(data, 4))
        left = [t.tolist() for t in trained.state_dict().values()]
        return [left, torch.get_rng_state().tolist()]

    def told(self, *arguments: Any, **options: Any) -> str:
        """The error that a training raises."""
        try:
            self.train(*arguments, **options)
        except (ValueError, ra.ReplicaDriftError) as error:
            return f"{type(error).__name__}: {error}"
        return "none"


def alone(trainings: Trainings) -> dict[str, Any]:
    found: dict[str, Any] = {"recorded": trainings.train("a") == trainings.train()}
    trainings.train("b")
    trainings.train("c", differs=4)
    found["fails"] = trainings.told("fails", fails=4)
    with ra.record(trainings.folder / "after.audit"):
        torch.ones(2).sum()
    return found


def among_ranks(trainings: Trainings) -> dict[str, Any]:
    class Drift(trainings.pl.Callback):
        """The second rank's weights are its own from the second step on."""

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *given: Any) -> None:
            if trainer.global_step == 2 and trainer.global_rank == 1:
                with torch.no_grad():
                    pl_module.net[0].weight[0, 0] += 1

    return {
        "same": trainings.told("same", replicas_every=1),
        "drift": trainings.told("drift", replicas_every=2, callbacks=[Drift()]),
    }


@pytest.fixture(scope="module", params=["lightning.pytorch", "pytorch_lightning"])
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, started: Started
) -> Path:
    made = tmp_path_factory.mktemp("trainings")
    started(__file__, made, 1, request.param)
    return made


def test_recording_changes_nothing(folder: Path) -> None:
    assert json.loads((folder / "0.json").read_text())["recorded"]


def test_trainings_from_one_seed_are_recorded_alike(folder: Path) -> None:
    audit = compare_traces([folder / "a.audit", folder / "b.audit"])
    # Batches are accumulated by two.
    assert (audit.verdict, audit.runs[0].manifest["steps"]) == ("identical", 4)


def test_what_differs_is_named(folder: Path) -> None:
    audit = compare_traces([folder / "a.audit", folder / "c.audit"])
    assert audit.origin is not None
    assert (audit.origin.key.step, audit.origin.key.phase) == (1, "forward")
    assert audit.origin.key.op.startswith("aten.mul")
    lines = Path(__file__).read_text().splitlines()
    (line,) = [n for n, text in enumerate(lines, 1) if text.lstrip().startswith("return loss *")]
    assert str(audit.origin.call_site).endswith(f"test_lightning.py:{line}")


def test_an_exception_ends_the_recording(folder: Path, closing: Closing) -> None:
    assert json.loads((folder / "0.json").read_text())["fails"] == "ValueError: no"
    told = closing(folder / "fails.audit")
    assert (told["outcome"], told["steps"], told["error"]) == ("raised", 1, "ValueError: no")
    # And another one could begin.
    assert closing(folder / "after.audit")["outcome"] == "finished"


def test_ranks_are_recorded_and_compared(
    tmp_path: Path, started: Started, closing: Closing
) -> None:
    seen = started(__file__, tmp_path, RANKS, "lightning.pytorch")
    assert [rank["same"] for rank in seen] == ["none"] * RANKS
    for rank in range(RANKS):
        assert closing(tmp_path / f"same.rank{rank}.audit")["outcome"] == "finished"
        assert seen[rank]["drift"].startswith("ReplicaDriftError: 1 of ")
        assert "rank 1 holds another 0.net.0.weight" in seen[rank]["drift"]
        told = closing(tmp_path / f"drift.rank{rank}.audit")
        assert (told["outcome"], told["steps"]) == ("raised", 2)


def main() -> None:
    rank = int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None
    folder = Path(sys.argv[1])
    trainings = Trainings(importlib.import_module(sys.argv[2]), folder, rank)
    found = alone(trainings) if rank is None else among_ranks(trainings)
    (folder / f"{rank or 0}.json").write_text(json.dumps(found))
    # Gloo aborts a process that is still there when another has left.
    os._exit(0)


if __name__ == "__main__":
    main()

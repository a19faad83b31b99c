"""Trainings of Hugging Face's Trainer, recorded and guarded as its users would."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import repro_audit as ra
from repro_audit.audit.comparing import compare_traces

RANKS = 2
Started = Callable[..., list[dict[str, Any]]]
Closing = Callable[[Path], dict[str, Any]]
Hook = Callable[[int, torch.Tensor], torch.Tensor]


def untouched(call: int, output: torch.Tensor) -> torch.Tensor:
    return output


def scaled(at: int) -> Hook:
    return lambda call, output: output * 1.0001 if call == at else output


def fails(call: int, output: torch.Tensor) -> torch.Tensor:
    if call == 4:
        raise ValueError("no")
    return output


class Trainings:
    """Trainings of three steps of two micro-batches, recorded in a folder by their names."""

    def __init__(self, folder: Path, rank: int | None) -> None:
        self.folder = folder
        self.rank = rank

    def train(
        self,
        name: str | None = None,
        tampered: Hook = untouched,
        *,
        guarded: bool = False,
        callbacks: Any = (),
        **options: Any,
    ) -> dict[str, Any]:
        """What is left in the end, and how often the model was called."""
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

        from repro_audit.integrations.transformers import RecordingCallback

        class GuardedTrainer(Trainer):
            """As docs/guard.md has it."""

            def __init__(self, *args: Any, every: int = 100, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.guard = ra.Guard(self.model, every=every)

            def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
                step = super().training_step
                return self.guard(lambda: step(*args, **kwargs))

        set_seed(0)
        config = GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=2, n_head=2)
        model = GPT2LMHeadModel(config)
        calls: list[object] = []

        def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            calls.append(None)
            return tampered(len(calls), output)

        model.transformer.h[1].mlp.c_fc.register_forward_hook(hook)
        recording = [RecordingCallback(self.folder / f"{name}.audit", **options)] if name else []
        kind, every = (GuardedTrainer, {"every": 2}) if guarded else (Trainer, {})
        trainer = kind(
            model,
            TrainingArguments(
                str(self.folder / "output"),
                max_steps=3,
                per_device_train_batch_size=4,
                gradient_accumulation_steps=2,
                use_cpu=True,
                ddp_backend=None if self.rank is None else "gloo",
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=[{"input_ids": row, "labels": row} for row in torch.randint(64, (64, 8))],
            callbacks=[*recording, *callbacks],
            **every,
        )
        trainer.train()
        left = [t.tolist() for t in model.state_dict().values()]
        return {"left": [left, torch.get_rng_state().tolist()], "calls": len(calls)}

    def told(self, *arguments: Any, **options: Any) -> str:
        """The error that a training raises."""
        try:
            self.train(*arguments, **options)
        except (ValueError, ra.NotReproducibleError, ra.ReplicaDriftError) as error:
            return f"{type(error).__name__}: {error}"
        return "none"


def alone(trainings: Trainings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    plain = trainings.train()
    found["recorded"] = trainings.train("a") == plain
    trainings.train("b")
    trainings.train("c", scaled(4))
    found["fails"] = trainings.told("fails", fails)
    trainings.train("after")
    guarded = trainings.train(guarded=True)
    found["guarded"] = [guarded["left"] == plain["left"], plain["calls"], guarded["calls"]]
    # The fourth micro-batch is checked: calls 5 and 6.
    found["flip"] = trainings.told(None, scaled(5), guarded=True)
    return found


def among_ranks(trainings: Trainings) -> dict[str, Any]:
    from transformers import TrainerCallback

    class Drift(TrainerCallback):
        """The second rank's weights are its own from the second step on."""

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 1 and args.process_index == 1:
                with torch.no_grad():
                    kwargs["model"].transformer.wte.weight[0, 0] += 1

    return {
        "alone": trainings.told("alone"),
        "same": trainings.told("same", replicas_every=1),
        "drift": trainings.told("drift", replicas_every=2, callbacks=[Drift()]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def seen(folder: Path, started: Started) -> dict[str, Any]:
    return started(__file__, folder, 1)[0]


def test_recording_changes_nothing(seen: dict[str, Any]) -> None:
    assert seen["recorded"]


def test_trainings_from_one_seed_are_recorded_alike(seen: dict[str, Any], folder: Path) -> None:
    audit = compare_traces([folder / "a.audit", folder / "b.audit"])
    assert (audit.verdict, audit.runs[0].manifest["steps"]) == ("identical", 3)
    assert audit.events.compared > 1000


def test_what_differs_is_named(seen: dict[str, Any], folder: Path) -> None:
    audit = compare_traces([folder / "a.audit", folder / "c.audit"])
    assert audit.origin is not None
    key = audit.origin.key
    # The fourth call is the second micro-batch of the second step.
    assert (key.step, key.phase, key.module) == (1, "forward", "transformer.h.1.mlp.c_fc")
    assert key.op.startswith("aten.mul")


def test_an_exception_leaves_no_recording_that_looks_whole(
    seen: dict[str, Any], folder: Path, closing: Closing
) -> None:
    assert seen["fails"] == "ValueError: no"
    told = closing(folder / "fails.audit")
    assert (told["outcome"], told["steps"]) == ("raised", 1)
    # The next training ended it, and was recorded for itself.
    assert compare_traces([folder / "a.audit", folder / "after.audit"]).verdict == "identical"


def test_a_guarded_trainer_trains_as_one_that_is_not(seen: dict[str, Any]) -> None:
    assert seen["guarded"] == [True, 6, 9]


def test_a_guarded_trainer_raises_before_the_optimizer(seen: dict[str, Any]) -> None:
    assert seen["flip"].startswith("SuspectedHardwareError: call 4 of ")
    assert "training_step" in seen["flip"]
    assert "the first of two was the odd one" in seen["flip"]


def test_ranks_are_recorded_and_compared(
    tmp_path: Path, started: Started, closing: Closing
) -> None:
    seen = started(__file__, tmp_path, RANKS)
    assert [(rank["alone"], rank["same"]) for rank in seen] == [("none", "none")] * RANKS
    for rank in range(RANKS):
        # What ranks ask each other is no part of the training.
        pair = [tmp_path / f"{name}.rank{rank}.audit" for name in ("alone", "same")]
        assert compare_traces(pair).verdict == "identical"
        assert closing(pair[1])["outcome"] == "finished"
        assert seen[rank]["drift"].startswith("ReplicaDriftError: 1 of ")
        assert "rank 1 holds another 0.transformer.wte.weight" in seen[rank]["drift"]
        told = closing(tmp_path / f"drift.rank{rank}.audit")
        assert (told["outcome"], told["steps"]) == ("raised", 2)


def main() -> None:
    rank = int(os.environ["RANK"]) if "RANK" in os.environ else None
    folder = Path(sys.argv[1])
    trainings = Trainings(folder, rank)
    found = alone(trainings) if rank is None else among_ranks(trainings)
    (folder / f"{rank or 0}.json").write_text(json.dumps(found))
    # Gloo aborts a process that is still there when another has left.
    os._exit(0)


if __name__ == "__main__":
    main()

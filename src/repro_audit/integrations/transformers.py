"""A callback for Hugging Face's Trainer, which records the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro_audit.integrations.training import TrainingRecording

try:
    from transformers import TrainerCallback
except ModuleNotFoundError as error:
    raise ImportError(
        "repro_audit.integrations.transformers needs transformers: "
        "pip install 'transformers[torch]'"
    ) from error

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class RecordingCallback(TrainingRecording, TrainerCallback):
    """Records what a Trainer trains, as one trace for `repro-audit compare`.

    ```
    Trainer(model, arguments, train_dataset=data, callbacks=[RecordingCallback("run.audit")])
    ```
    Arguments, and what it costs, are those of `repro_audit.record`; steps are the optimizer's. Of
    several ranks each has a file of its own (`run.rank1.audit`); with `replicas_every` they are
    compared after so many steps each (`repro_audit.check_replicas`). Trainer tells no callback of
    an exception: where it raises, the recording ends with the process, with the next training, or
    by `close()`; as one that ends by an exception.
    """

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Begin to record."""
        ranks = args.process_index, args.world_size
        self.begin(kwargs["model"], [kwargs["optimizer"]], *ranks)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """End a step of the recording: the optimizer has stepped."""
        self.step(kwargs["model"], [kwargs["optimizer"]])

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """End the recording."""
        self.end()

"""A callback for Lightning's Trainer, which records the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from repro_audit.integrations.training import TrainingRecording

try:
    from lightning.pytorch import Callback
except ModuleNotFoundError:
    try:
        # The same under another name, which may be there alone.
        from pytorch_lightning import Callback  # type: ignore[assignment]
    except ModuleNotFoundError as error:
        raise ImportError(
            "repro_audit.integrations.lightning needs lightning: pip install lightning"
        ) from error

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class RecordingCallback(TrainingRecording, Callback):
    """Records what a Trainer fits, as one trace for `repro-audit compare`.

    ```
    Trainer(callbacks=[RecordingCallback("run.audit")]).fit(module, loader)
    ```
    Arguments, and what it costs, are those of `repro_audit.record`; a step is a batch after which
    an optimizer has stepped. Of several ranks each has a file of its own (`run.rank1.audit`); with
    `replicas_every` they are compared after so many steps each (`repro_audit.check_replicas`).
    Where fitting raises the recording ends as one that ends by that exception.
    """

    _stepped = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to record: what was made before, a sanity check among it, is left out."""
        self._stepped = trainer.global_step
        self.begin(pl_module, trainer.optimizers, trainer.global_rank, trainer.world_size)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """End a step of the recording, if an optimizer has stepped."""
        if trainer.global_step != self._stepped:
            self._stepped = trainer.global_step
            self.step(pl_module, trainer.optimizers)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the recording."""
        self.end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the recording, as one that ends by an exception."""
        self.end(exception)

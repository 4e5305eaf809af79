"""What a run has reached, and how it is written: last and best checkpoint, metrics, state."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from dataclasses import dataclass, field
from typing import Any

from boneage_trainer.contract import ContractError, Job, RunFolder, sentinel_line, write_atomic, write_manifest
from boneage_trainer.train import checkpoint
from boneage_trainer.train.checkpoint import BackgroundWriter
from boneage_trainer.train.session import TrainingSession


@dataclass(slots=True)
class TrainingState:
    """What a checkpoint holds beside the weights."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_mae_months: float | None = None
    best_epoch: int = 0

    @property
    def epoch(self) -> int:
        return len(self.history)


class Recorder:
    """Keeps `state`, and the best weights in memory, so that a folder that vanished can be written again.

    Epochs up to `small_epochs` use smaller images and are compared with each other only; `device` has the settings
    that a next leg must compute with, to end with the same bits.
    """

    def __init__(self, job: Job, small_epochs: int, session: TrainingSession, device: dict[str, Any]) -> None:
        self.small_epochs = small_epochs
        self.job, self.session, self.folder, self.device = job, session, session.folder, device
        self.writer, self.state = BackgroundWriter(), TrainingState()
        self.best: tuple[dict[str, Any], list[Any]] = ({}, [])

    def resume(self, source: RunFolder) -> list[Any]:
        """Loads what `source` has reached, completes this leg's folder with it, and returns the newest values.

        Raises:
            ContractError: a checkpoint is torn, or belongs to another run.
        """
        notes, values = checkpoint.read_checkpoint(source.last)
        if notes["job"] != self._identity():
            raise ContractError(f"checkpoint {source.last} belongs to another run: its settings or images differ")
        self.state = TrainingState(**notes["progress"])
        self.best = checkpoint.read_checkpoint(source.best)
        if self.best[0]["epoch"] > self.state.best_epoch:  # killed between writing best and last of an epoch
            self.state.best_epoch = self.best[0]["epoch"]
            self.state.best_mae_months = self.best[0]["val_mae_months"]
        if source.root.resolve() != self.folder.root.resolve():
            self.folder.last.parent.mkdir(parents=True, exist_ok=True)
            for name in ("best", "last"):
                shutil.copyfile(getattr(source, name), getattr(self.folder, name))
        self._write_metrics(self.state.history)
        return values

    def _identity(self) -> dict[str, Any]:
        return {"train": dataclasses.asdict(self.job.train), "fingerprint": self.job.data["fingerprint"]}

    @property
    def has_stalled(self) -> bool:
        """Whether the validation MAE has not improved for `early_stopping_patience` epochs."""
        if self.state.epoch <= self.small_epochs:
            return False
        patience = self.job.train.early_stopping_patience
        return bool(patience) and self.state.epoch - self.state.best_epoch >= patience

    def is_best(self, mae_months: float) -> bool:
        """Whether no earlier epoch had so low a validation MAE; the first epoch on full-size images always is.

        Raises:
            FloatingPointError: `mae_months` is not finite.
        """
        epoch = self.state.epoch + 1
        if not math.isfinite(mae_months):
            raise FloatingPointError(f"validation MAE is {mae_months} in epoch {epoch}: lower train.learning_rate")
        best = self.state.best_mae_months
        is_first_full_size = self.state.best_epoch <= self.small_epochs < epoch
        return best is None or is_first_full_size or mae_months < best

    def set_best(self, epoch: int, mae_months: float, values: list[Any]) -> None:
        self.state.best_mae_months, self.state.best_epoch = mae_months, epoch
        self.best = ({"epoch": epoch, "val_mae_months": mae_months}, values)

    def record_epoch(self, line: dict[str, Any], values: list[Any], is_best: bool) -> None:
        """Writes the epoch of `line` in the background: the weights first, then the files that describe them."""
        line["elapsed_s"], line["time_s"] = self.session.elapsed_s, time.time()
        for key, value in line.items():  # six significant digits, but times since 1970 in full
            if isinstance(value, float) and abs(value) < 1e8:
                line[key] = float(f"{value:.6g}")
        self.state.history.append(line)
        history = list(self.state.history)
        notes = {"job": self._identity(), "device": self.device, "progress": dataclasses.asdict(self.state)}
        best = self.best

        def write() -> None:
            try:
                if is_best or not self.folder.best.exists():
                    checkpoint.save_checkpoint(self.folder.best, best[1], best[0])
                checkpoint.save_checkpoint(self.folder.last, values, notes)
                self._write_metrics(history)
                self.session.epoch = history[-1]["epoch"]
                self.session.write_state("running")
                write_manifest(self.folder)
            finally:
                last = history[-1]
                print(
                    f"epoch {last['epoch']}/{self.job.train.epochs}  loss {last['loss']:.4f}  "
                    f"MAE {last['mae_months']:.1f}  validation MAE {last['val_mae_months']:.2f} months  "
                    f"{last['epoch_s']:.1f} s (load {last['load_s']:.1f}, compute {last['compute_s']:.1f})", flush=True,
                )  # fmt: skip
                print(sentinel_line(last), flush=True)

        self.writer.submit(f"epoch {line['epoch']}", write)

    def wait(self) -> None:
        """Waits until everything is written; raises the OSError of an epoch that could not be."""
        self.writer.wait()
        if self.writer.error:
            raise self.writer.error

    def _write_metrics(self, history: list[dict[str, Any]]) -> None:
        lines = (sentinel_line(line).partition(" ")[2] for line in history)
        write_atomic(self.folder.metrics, "".join(f"{line}\n" for line in lines))

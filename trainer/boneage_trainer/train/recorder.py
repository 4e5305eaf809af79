"""What a training has reached, and how it gets to disk: last and best checkpoint, metrics, state."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from dataclasses import dataclass, field
from typing import Any

from boneage_trainer.contract import Job, RunFolder, sentinel_line, write_atomic, write_manifest
from boneage_trainer.errors import ContractError
from boneage_trainer.train import checkpoint
from boneage_trainer.train.checkpoint import BackgroundWriter
from boneage_trainer.train.session import TrainingSession


@dataclass(slots=True)
class TrainingState:
    """What a checkpoint knows beside the weights."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_mae_months: float | None = None
    best_epoch: int = 0

    @property
    def epoch(self) -> int:
        return len(self.history)


class Recorder:
    """Keeps `progress`, and the best weights in memory, so that a folder that vanished can be written again.

    Epochs up to `small_epochs` saw smaller images and compete among themselves only; `device` is what
    a next leg must compute with, to end with the same bits.
    """

    def __init__(self, job: Job, small_epochs: int, session: TrainingSession, device: dict[str, Any]) -> None:
        self.small_epochs = small_epochs
        self.job, self.session, self.folder, self.device = job, session, session.folder, device
        self.saver, self.progress = BackgroundWriter(), TrainingState()
        self.best: tuple[dict[str, Any], list[Any]] = ({}, [])

    # ------------------------------------------------------------------------------------ resume
    def take(self, source: RunFolder) -> list[Any]:
        """Takes over what `source` has reached and returns its newest values; the folder is whole from then on.

        Raises:
            ContractError: a checkpoint is torn, or belongs to another training.
        """
        notes, values = checkpoint.read_checkpoint(source.last)
        if notes["job"] != self._identity():
            raise ContractError(f"checkpoint {source.last} belongs to another training than this job")
        self.progress = TrainingState(**notes["progress"])
        self.best = checkpoint.read_checkpoint(source.best)
        if self.best[0]["epoch"] > self.progress.best_epoch:  # killed after its epoch's best, before its last
            self.progress.best_epoch = self.best[0]["epoch"]
            self.progress.best_mae_months = self.best[0]["val_mae_months"]
        if source.root.resolve() != self.folder.root.resolve():
            self.folder.last.parent.mkdir(parents=True, exist_ok=True)
            for name in ("best", "last"):
                shutil.copyfile(getattr(source, name), getattr(self.folder, name))
        self._write_metrics(self.progress.history)
        return values

    def _identity(self) -> dict[str, Any]:
        return {"train": dataclasses.asdict(self.job.train), "fingerprint": self.job.data["fingerprint"]}

    # -------------------------------------------------------------------------------------- epochs
    @property
    def has_stalled(self) -> bool:
        if self.progress.epoch <= self.small_epochs:
            return False
        patience = self.job.train.early_stopping_patience
        return bool(patience) and self.progress.epoch - self.progress.best_epoch >= patience

    def is_best(self, mae_months: float) -> bool:
        """Whether no epoch before had so low a validation MAE; those on small images count among themselves only.

        Raises:
            FloatingPointError: it is no number.
        """
        epoch = self.progress.epoch + 1
        if not math.isfinite(mae_months):
            raise FloatingPointError(f"validation MAE is {mae_months} in epoch {epoch}: lower train.learning_rate")
        best = self.progress.best_mae_months
        begins_anew = self.progress.best_epoch <= self.small_epochs < epoch
        return best is None or begins_anew or mae_months < best

    def set_best(self, epoch: int, mae_months: float, values: list[Any]) -> None:
        self.progress.best_mae_months, self.progress.best_epoch = mae_months, epoch
        self.best = ({"epoch": epoch, "val_mae_months": mae_months}, values)

    def commit(self, line: dict[str, Any], values: list[Any], is_best: bool) -> None:
        """Has the epoch of `line` written in the background: the weights first, then what tells of them."""
        line["elapsed_s"], line["time_s"] = self.session.elapsed_s, time.time()
        self.progress.history.append({key: _rounded(value) for key, value in line.items()})
        history = list(self.progress.history)
        notes = {"job": self._identity(), "device": self.device, "progress": dataclasses.asdict(self.progress)}
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
                print(_human(history[-1], self.job.train.epochs), flush=True)
                print(sentinel_line(history[-1]), flush=True)

        self.saver.put(f"epoch {line['epoch']}", write)

    def settle(self) -> None:
        """Waits for what is being written; raises the OSError of an epoch that could not be."""
        self.saver.drain()
        if self.saver.error:
            raise self.saver.error

    def _write_metrics(self, history: list[dict[str, Any]]) -> None:
        lines = (sentinel_line(line).partition(" ")[2] for line in history)
        write_atomic(self.folder.metrics, "".join(f"{line}\n" for line in lines))


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) and abs(value) < 1e8 else value


def _human(line: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {line['epoch']}/{epochs}  loss {line['loss']:.4f}  MAE {line['mae_months']:.1f}  "
        f"validation MAE {line['val_mae_months']:.2f} months  {line['epoch_s']:.1f} s "
        f"(load {line['load_s']:.1f}, compute {line['compute_s']:.1f})"
    )

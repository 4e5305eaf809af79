"""The training of one leg: from the last checkpoint, epoch by epoch, to the evaluated model."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from boneage_trainer import checkpoint, environment, evaluate, model
from boneage_trainer.contract import (
    ContractError,
    Job,
    RunFolder,
    sentinel_line,
    write_atomic,
    write_manifest,
)
from boneage_trainer.feed import Feed
from boneage_trainer.pack import Pack
from boneage_trainer.session import Session, Stopped
from boneage_trainer.splits import Split, split

_PREDICT_BATCH = 256


@dataclass(slots=True)
class Progress:
    """What a checkpoint knows beside the weights."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best_mae_months: float | None = None
    best_epoch: int = 0

    @property
    def epoch(self) -> int:
        return len(self.history)


def train(job: Job, pack: Pack, session: Session, resume: Path | None) -> None:
    """Trains, evaluates and leaves the whole run folder behind.

    Raises:
        Stopped: asked to, or out of time; everything up to the last whole epoch is saved.
        ContractError: the data or the checkpoint do not fit the job.
    """
    parts = split(job.train.split, pack.ids, pack.folder)
    cv2.setNumThreads(1)
    keras.utils.set_random_seed(job.train.seed)
    if job.train.deterministic:
        environment.make_deterministic()
    trainer = Trainer(job, pack, parts, session)
    trainer.go_on_from(resume)
    times = {"startup_s": session.elapsed_s}
    session.note("running")
    trainer.all_epochs()
    trainer.finish(times)


class Trainer:
    """One leg's model, data and progress."""

    def __init__(self, job: Job, pack: Pack, parts: Split, session: Session) -> None:
        config = job.train
        self.job, self.pack, self.parts, self.session = job, pack, parts, session
        self.folder = session.folder
        self.feed = Feed(pack, parts.train, config.batch_size, config.seed, config.augment == "light")
        ages = pack.months[parts.train]
        self.networks = model.build(config, pack.images.shape[1], float(ages.mean()), float(ages.std()) or 1.0)
        model.compiled(self.networks, config, self.feed.steps)
        self.progress = Progress()
        self.first_epoch = 1

    # ------------------------------------------------------------------------------------ resume
    def go_on_from(self, resume: Path | None) -> None:
        """Takes over the checkpoint of `resume`, an earlier leg's folder, if it has one."""
        source = RunFolder(resume or self.folder.root)
        if not source.last.exists():
            return
        notes = checkpoint.load(source.last, self._variables())
        if notes["job"] != self._job_identity():
            raise ContractError(f"checkpoint {source.last} belongs to another training than this job")
        self.progress = Progress(**notes["progress"])
        self._take_files(source)
        self.first_epoch = self.progress.epoch + 1
        self.session.epoch = self.progress.epoch
        print(f"going on after epoch {self.progress.epoch} of {self.job.train.epochs}", flush=True)

    def _take_files(self, source: RunFolder) -> None:
        """So that this leg's folder is whole from its first moment."""
        if source.root.resolve() != self.folder.root.resolve():
            self.folder.last.parent.mkdir(parents=True, exist_ok=True)
            for name in ("best", "last"):
                shutil.copyfile(getattr(source, name), getattr(self.folder, name))
        self._write_metrics()

    def _variables(self) -> list[Any]:
        core = self.networks.core
        return [*core.variables, *core.optimizer.variables]

    def _job_identity(self) -> dict[str, Any]:
        return {"train": dataclasses.asdict(self.job.train), "fingerprint": self.job.data["fingerprint"]}

    # ------------------------------------------------------------------------------------ epochs
    def all_epochs(self) -> None:
        for epoch in range(self.first_epoch, self.job.train.epochs + 1):
            if self._has_stalled():
                print(f"no better validation MAE since epoch {self.progress.best_epoch}: done", flush=True)
                return
            if not self.session.fits(self._forecast_s()):
                raise Stopped("time limit")
            self._epoch(epoch)

    def _forecast_s(self) -> float:
        """What one more epoch takes, by the slowest of this leg; nothing is known before its first."""
        mine = self.progress.history[self.first_epoch - 1 :]
        return max((line["epoch_s"] for line in mine), default=0.0)

    def _has_stalled(self) -> bool:
        patience = self.job.train.early_stopping_patience
        return bool(patience) and self.progress.epoch - self.progress.best_epoch >= patience

    def _epoch(self, epoch: int) -> None:
        began_s = time.monotonic()
        line: dict[str, Any] = {"epoch": epoch, "leg": self.session.leg, "images": self.feed.images}
        line.update(self._steps(epoch))
        with model.Averaged(self.networks.core):
            line.update(self._validate())
            self._note_best(epoch, line["val_mae_months"])
        line["epoch_s"] = time.monotonic() - began_s
        self._commit(epoch, line)

    def _steps(self, epoch: int) -> dict[str, float]:
        """One pass over the training set; the time spent waiting for data and computing, apart."""
        core, load_s, compute_s, sums = self.networks.core, 0.0, 0.0, np.zeros(2)
        mark_s = time.monotonic()
        for rows, images in self.feed.epoch(epoch):
            self.session.check()
            ready_s = time.monotonic()
            answer = core.train_on_batch(self._inputs(images, rows), self.networks.z(self.pack.months[rows]))
            sums += [float(value) for value in answer]
            core.reset_metrics()  # Keras versions differ in whether an answer is the batch's or a running mean
            done_s = time.monotonic()
            load_s, compute_s, mark_s = load_s + ready_s - mark_s, compute_s + done_s - ready_s, done_s
        count = self.feed.images
        return {
            "loss": sums[0] / self.feed.steps,
            "mae_months": sums[1] / self.feed.steps * self.networks.sd_months,
            "learning_rate": float(core.optimizer.learning_rate),
            "load_s": load_s,
            "compute_s": compute_s,
            "load_ms_per_image": 1000 * load_s / count,
            "compute_ms_per_image": 1000 * compute_s / count,
        }

    def _inputs(self, images: Any, rows: Any) -> list[Any]:
        return [images, self.pack.male[rows][:, None]] if self.job.train.use_sex else [images]

    def _validate(self) -> dict[str, float]:
        began_s = time.monotonic()
        months = self.pack.months[self.parts.validation]
        predicted = self.predict(self.parts.validation)
        z_errors = (predicted - months) / self.networks.sd_months
        return {
            "val_mae_months": float(np.abs(predicted - months).mean()),
            "val_loss": float(_huber(z_errors).mean()),
            "validate_s": time.monotonic() - began_s,
        }

    def predict(self, rows: list[int]) -> Any:
        """Ages in months, float32 (n,), in the order of `rows`."""
        answers = []
        for start in range(0, len(rows), _PREDICT_BATCH):
            self.session.check()
            part = rows[start : start + _PREDICT_BATCH]
            images = self.pack.images[part][..., None]
            answers.append(np.asarray(self.networks.full.predict_on_batch(self._inputs(images, part)))[:, 0])
        return np.concatenate(answers)

    # ------------------------------------------------------------------------------------ saving
    def _note_best(self, epoch: int, mae_months: float) -> None:
        """Called with the averaged weights in place: they are what was validated, so they are what is kept."""
        if not math.isfinite(mae_months):
            raise FloatingPointError(f"validation MAE is {mae_months} in epoch {epoch}: lower train.learning_rate")
        if self.progress.best_mae_months is None or mae_months < self.progress.best_mae_months:
            self.progress.best_mae_months, self.progress.best_epoch = mae_months, epoch
            checkpoint.save(
                self.folder.best, self.networks.core.variables, {"epoch": epoch, "val_mae_months": mae_months}
            )

    def _commit(self, epoch: int, line: dict[str, Any]) -> None:
        """Makes the epoch last: the checkpoint first, since the metrics can be told from it again."""
        line["elapsed_s"], line["time_s"] = self.session.elapsed_s, time.time()
        line["checkpoint_s"] = 0.0  # known once it is written; the next line's history has it
        self.progress.history.append({key: _rounded(value) for key, value in line.items()})
        began_s = time.monotonic()
        notes = {"job": self._job_identity(), "progress": dataclasses.asdict(self.progress)}
        checkpoint.save(self.folder.last, self._variables(), notes)
        self.progress.history[-1]["checkpoint_s"] = _rounded(time.monotonic() - began_s)
        self._write_metrics()
        self.session.epoch = epoch
        self.session.note("running")
        write_manifest(self.folder)
        print(_human(self.progress.history[-1], self.job.train.epochs), flush=True)
        print(sentinel_line(self.progress.history[-1]), flush=True)

    def _write_metrics(self) -> None:
        lines = (sentinel_line(line).partition(" ")[2] for line in self.progress.history)
        write_atomic(self.folder.metrics, "".join(f"{line}\n" for line in lines))

    # -------------------------------------------------------------------------------------- end
    def finish(self, times: dict[str, float]) -> None:
        """Evaluates the best epoch's weights and leaves model, predictions, evaluation and environment."""
        began_s = time.monotonic()
        checkpoint.load(self.folder.best, self.networks.core.variables)
        predictions = {name: self.predict(getattr(self.parts, name)) for name in ("validation", "test")}
        self.networks.full.save(self.folder.model)
        evaluate.write(self.folder, self.pack, self.parts, predictions)
        mine = self.progress.history[self.first_epoch - 1 :]
        for key in ("load_s", "compute_s", "validate_s", "checkpoint_s"):
            times[key] = sum(line[key] for line in mine)
        times.update(evaluate_s=time.monotonic() - began_s, total_s=self.session.elapsed_s, epochs_this_leg=len(mine))
        environment.write(self.folder, self.job, times)


def _huber(z_errors: Any, delta: float = 0.5) -> Any:
    size = np.abs(z_errors)
    return np.where(size <= delta, size**2 / 2, delta * (size - delta / 2))


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) and abs(value) < 1e8 else value


def _human(line: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {line['epoch']}/{epochs}  loss {line['loss']:.4f}  MAE {line['mae_months']:.1f}  "
        f"validation MAE {line['val_mae_months']:.2f} months  {line['epoch_s']:.1f} s "
        f"(load {line['load_s']:.1f}, compute {line['compute_s']:.1f})"
    )

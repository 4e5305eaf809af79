"""Trains one leg: from the last checkpoint, epoch by epoch, to the evaluated model.

`train` chooses the device and starts a `Trainer`. `Trainer.run_epochs` is the loop over epochs, and
`Trainer.finish` lists what happens once, at the end of a run.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import keras
import numpy as np

from boneage_trainer.contract import ContractError, Job, PackFolder, RunFolder
from boneage_trainer.data.pack import Pack
from boneage_trainer.data.splits import Split, make_split, write_split_csv
from boneage_trainer.evaluation import evaluate, gradcam, model_card
from boneage_trainer.inference.model import AgePredictor, BatchPredictor
from boneage_trainer.train import checkpoint, environment
from boneage_trainer.train.autotune import autotune
from boneage_trainer.train.device import Device, find_device, is_out_of_memory
from boneage_trainer.train.feed import FeatureCache, Feed, split_batches
from boneage_trainer.train.model import Networks, build_networks
from boneage_trainer.train.recorder import Recorder
from boneage_trainer.train.session import TrainingSession, TrainingStopped
from boneage_trainer.train.step import Phase, compute_loss, image_size_px, is_cacheable

_PENDING_STEPS = 2
"""How many steps may be queued before their loss is read, so that a GPU never waits for Python."""


def train(job: Job, pack: Pack, session: TrainingSession, source: RunFolder) -> None:
    """Trains from the checkpoint in `source`, if there is one, evaluates, and completes the run folder.

    Raises:
        TrainingStopped: a stop was requested or time is up; everything up to the last whole epoch is saved.
        ContractError: the data, the weights or the checkpoint do not fit the job.
        OSError: the last epochs could not be written.
    """
    cv2.setNumThreads(1)
    # A job may leave its images open; from here on it names these, so that no later leg trains on others.
    job = dataclasses.replace(job, data={**job.data, **PackFolder(pack.folder).job_data()})
    if job.train.deterministic:
        environment.make_deterministic()
    parts = make_split(job.train.split, pack.ids, pack.folder)
    device = find_device()
    session.handle_signals()  # again, because TensorFlow's clusters replace the handlers
    device.check_batch(job.train.batch_size)
    device, measured = autotune(device, job.train, pack, parts, source)
    while not _fits_in_memory(job, pack, parts, session, source, device, measured):
        images_at_once = job.train.batch_size // device.accumulate
        smaller = device.with_smaller_batches(job.train.batch_size)
        if smaller is None:
            raise ContractError(
                f"out of memory with {images_at_once} images at a time, which cannot be halved; "
                "set a smaller train.batch_size or use a pack of smaller images"
            )
        device = smaller
        print(
            f"out of memory: continuing with {images_at_once // 2} images at a time and gradients "
            f"accumulated over {device.accumulate} parts of a batch", flush=True,
        )  # fmt: skip
        source = session.folder if session.folder.last.exists() else source
        keras.utils.clear_session()
        gc.collect()


def _fits_in_memory(
    job: Job, pack: Pack, parts: Split, session: TrainingSession, source: RunFolder, device: Device, measured: list[Any]
) -> bool:
    """Trains to the end; False where the memory of `device` was too small. Nothing of the attempt stays in memory."""
    try:
        trainer = Trainer(job, pack, parts, session, device)
        trainer.resume(source)
        times = {"startup_s": session.elapsed_s}
        session.write_state("running")
        trainer.run_epochs()
        trainer.finish(times, measured)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


class Trainer:
    """The networks, data and phase of one leg; `recorder` keeps what it has reached."""

    def __init__(self, job: Job, pack: Pack, parts: Split, session: TrainingSession, device: Device) -> None:
        config = job.train.for_size(pack.images.shape[1])
        keras.utils.set_random_seed(config.seed)
        self.job, self.config, self.pack, self.parts = job, config, pack, parts
        self.session, self.device = session, device
        self.recorder = Recorder(job, config.small_epochs, session, device.settings)
        self.feed = Feed(pack, parts.train, config.batch_size, config.seed, config.augment == "light")
        size_px = None if config.small_epochs else pack.images.shape[1]
        with device.scope():
            self.networks = build_networks(config, size_px, pack.months[parts.train], pack.folder, device.precision)
        self.predict_batch = max(device.local, 2 * config.batch_size // device.accumulate)
        self.cache = self._make_cache() if is_cacheable(config) else None
        self.phase = self._make_phase(1)
        self.first_epoch = 1

    def _make_phase(self, epoch: int) -> Phase:
        return Phase(self.networks, self.config, self.device, self.feed, self.cache, epoch)

    def _make_cache(self) -> FeatureCache | None:
        """A cache for the features of the training and validation set, or None where it does not fit."""
        body, predict = self.networks.body, BatchPredictor(self.networks.body, self.device)

        def compute(rows: Sequence[int], draw: int) -> Iterator[Any]:
            for _, images in self.feed.load_batches(split_batches(rows, self.predict_batch), draw):
                self._stop_if(self.session.stop_reason())
                yield predict([images])

        # By way of Keras: numpy cannot name bfloat16.
        dtype = keras.ops.convert_to_numpy(keras.ops.zeros(1, body.output.dtype)).dtype
        count = len(self.parts.train) * max(1, self.config.cached_views) + len(self.parts.validation)
        cache = FeatureCache(compute, tuple(body.output.shape[1:]), dtype, count, self.session.folder.root)
        if cache.fits():
            return cache
        print(
            f"not enough memory or disk to cache {cache.total_bytes / 1e9:.1f} GB of features; "
            "they are computed again in every epoch", flush=True,
        )  # fmt: skip
        return None

    # ------------------------------------------------------------------------------------ resume
    def resume(self, source: RunFolder) -> None:
        """Continues from the checkpoint in `source`, an earlier leg's folder or this one, if there is one.

        Raises:
            ContractError: the checkpoint does not fit, or other machines of this leg resume from another epoch.
        """
        if source.last.exists():
            values = self.recorder.resume(source)
            self._enter_phase(self.recorder.state.epoch)
            checkpoint.assign_values(self._variables(), values, source.last)
            print(f"resuming after epoch {self.recorder.state.epoch} of {self.config.epochs}", flush=True)
        epoch = self.recorder.state.epoch
        if self.device.is_true_anywhere(self.device.mean_over_machines(epoch) != epoch):
            raise ContractError(
                f"this machine resumes after epoch {epoch}, others after another one; give all the same --resume"
            )
        self.first_epoch, self.session.epoch = epoch + 1, epoch

    def _enter_phase(self, epoch: int) -> None:
        if not self.phase.first <= epoch <= self.phase.last:
            self.phase = self._make_phase(epoch)

    def _variables(self) -> list[Any]:
        return [*self.networks.core.variables, *self.phase.step.variables]

    # ------------------------------------------------------------------------------------ epochs
    def run_epochs(self) -> None:
        """Trains, validates and saves epoch by epoch; raises TrainingStopped before one that would exceed a limit."""
        try:
            for epoch in range(self.first_epoch, self.config.epochs + 1):
                if self.recorder.has_stalled:
                    best_epoch = self.recorder.state.best_epoch
                    print(f"early stopping: no better validation MAE since epoch {best_epoch}", flush=True)
                    break
                # The slowest epoch of this leg is the forecast for the next; before its first nothing is known.
                forecast_s = max((line["epoch_s"] for line in self._lines_of_this_leg()), default=0.0)
                self._stop_if(self.session.exceeded_limit(forecast_s))
                self._enter_phase(epoch)
                self._run_epoch(epoch)
        finally:
            self.recorder.writer.wait()

    def _lines_of_this_leg(self) -> list[dict[str, Any]]:
        return self.recorder.state.history[self.first_epoch - 1 :]

    def _stop_if(self, reason: str) -> None:
        """Raises TrainingStopped for a reason of this machine or of another one, at the same step on all."""
        if self.device.is_true_anywhere(bool(reason)):
            raise TrainingStopped(reason or "another machine stopped")

    def _run_epoch(self, epoch: int) -> None:
        began_s = time.monotonic()
        line: dict[str, Any] = {"epoch": epoch, "leg": self.session.leg, "images": self.feed.images}
        line.update(self._train_epoch(epoch))
        with self.phase.step.averaged_weights():
            line.update(self._validate(epoch))
            mae_months = line["val_mae_months"]
            if is_best := self.recorder.is_best(mae_months):
                self.recorder.set_best(epoch, mae_months, checkpoint.copy_values(self.networks.core.variables))
        saving_s = time.monotonic()
        self.recorder.writer.wait()
        values = checkpoint.copy_values(self._variables())
        line["checkpoint_s"] = time.monotonic() - saving_s
        line["epoch_s"] = time.monotonic() - began_s
        self.recorder.record_epoch(line, values, is_best)

    def _train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training set. Times waiting for data, computing and compiling separately."""
        load_s, compute_s, compile_s, sums, pending = 0.0, 0.0, 0.0, np.zeros(2), deque[Any]()
        # The first step of a leg, a phase or an image size is traced, and it waits for features.
        is_first = epoch in (self.first_epoch, self.phase.first, self.config.small_epochs + 1)
        mark_s = time.monotonic()
        for rows, images in self.phase.batches(epoch):
            self._stop_if(self.session.stop_reason())
            ready_s = time.monotonic()
            target = self.networks.to_target(self.pack.months[rows])[:, None]
            pending.append(self.phase.step(self._inputs(images, rows), target))
            while len(pending) > (0 if is_first else _PENDING_STEPS):
                sums += [float(value) for value in pending.popleft()]
            done_s = time.monotonic()
            if is_first:
                compile_s = done_s - mark_s
            else:
                load_s, compute_s = load_s + ready_s - mark_s, compute_s + done_s - ready_s
            is_first, mark_s = False, done_s
        for loss_and_error in pending:
            sums += [float(value) for value in loss_and_error]
        compute_s += time.monotonic() - mark_s
        means = sums / self.feed.steps
        images_timed = max(1, self.feed.images - (self.config.batch_size if compile_s else 0))
        return {
            "loss": means[0], "mae_months": means[1] * self.networks.sd_months,
            "learning_rate": float(self.phase.step.optimizer.learning_rate),
            "compile_s": compile_s, "load_s": load_s, "compute_s": compute_s,
            "load_ms_per_image": 1000 * load_s / images_timed, "compute_ms_per_image": 1000 * compute_s / images_timed,
        }  # fmt: skip

    def _inputs(self, images: Any, rows: Any) -> list[Any]:
        """What a network takes for `rows`: their images or features (b, ...), and sex (b, 1) if it is used."""
        return [images, self.pack.male[rows][:, None]] if self.config.use_sex else [images]

    def _validate(self, epoch: int) -> dict[str, float]:
        """Predicts the validation set, from cached features where the phase has them."""
        began_s, rows = time.monotonic(), self.parts.validation
        batches: Any = split_batches(rows, self.predict_batch)
        if self.phase.cache:
            features = self.phase.cache.get("validation", rows, 0)
            batches = ((some, features[some]) for some in batches)
        else:
            batches = self.feed.load_batches(batches, 0, image_size_px(self.config, epoch))
        targets = []
        for some, images in batches:
            self._stop_if(self.session.stop_reason())
            targets.append(self.phase.predict(self._inputs(images, some))[:, 0])
        errors = np.concatenate(targets) - self.networks.to_target(self.pack.months[rows])
        return {
            "val_mae_months": float(np.abs(errors).mean() * self.networks.sd_months),
            "val_loss": float(compute_loss(self.config.loss, errors)),
            "validate_s": time.monotonic() - began_s,
        }

    # ------------------------------------------------------------------------------- end of the run
    def finish(self, times: dict[str, float], measured: list[Any]) -> None:
        """Evaluates the best epoch's weights; writes the model, its predictions, evaluation and environment.

        `times` has the seconds known so far, `measured` what `autotune` returned.

        Raises:
            OSError: something could not be written.
        """
        began_s, folder, pack, parts = time.monotonic(), self.session.folder, self.pack, self.parts
        self.recorder.wait()
        networks = build_networks(
            self.config.without_weights(), pack.images.shape[1], pack.months[parts.train], pack.folder, "float32"
        )
        checkpoint.assign_values(networks.core.variables, self.recorder.best[1], folder.best)
        predictions = {
            "validation": self._predict_validation(networks),
            "test": self._predict_months(networks.full, parts.test),
        }
        networks.full.save(folder.model)
        heatmaps = gradcam.write_gradcam(folder, networks.full, pack, parts.test, predictions["test"])
        evaluate.write_evaluation(folder, pack, parts, predictions, heatmaps)
        write_split_csv(folder, pack, parts)
        lines = self._lines_of_this_leg()
        for key in ("compile_s", "load_s", "compute_s", "validate_s", "checkpoint_s"):
            times[key] = sum(line[key] for line in lines)
        times["cpu_s"] = sum(os.times()[:2])
        times.update(evaluate_s=time.monotonic() - began_s, total_s=self.session.elapsed_s, epochs_this_leg=len(lines))
        environment.write_environment(folder, self.job, self.device, measured, times)
        model_card.write_model_card(folder, self.job)

    def _predict_validation(self, networks: Networks) -> Any:
        """Ages of the validation set, (views, n); from cached features where they are those of the saved model."""
        rows, cache = self.parts.validation, self.phase.cache
        if not cache or self.config.test_views > 1 or self.device.precision != "float32":
            return self._predict_months(networks.full, rows)
        predict = BatchPredictor(networks.head, dataclasses.replace(self.device, jit=False))
        features, batches = cache.get("validation", rows, 0), split_batches(rows, self.predict_batch)
        targets = np.concatenate([predict(self._inputs(features[some], some))[:, 0] for some in batches])
        return networks.to_months(targets)[None]

    def _predict_months(self, model: Any, rows: list[int]) -> Any:
        """Ages in months, float32 (views, n), in the order of `rows`."""
        predictor = AgePredictor(model, dataclasses.replace(self.device, jit=False), self.predict_batch)
        return predictor.predict_pack(self.pack, rows, self.config.test_views, self.session.raise_if_stopped)

"""The training of one leg: from the last checkpoint, epoch by epoch, to the evaluated model."""

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

from boneage_trainer.contract import Job, PackFolder, RunFolder
from boneage_trainer.data import splits
from boneage_trainer.data.pack import Pack
from boneage_trainer.data.splits import Split, make_split
from boneage_trainer.errors import ContractError
from boneage_trainer.evaluation import evaluate, gradcam, model_card
from boneage_trainer.inference.model import Predictor
from boneage_trainer.train import checkpoint, device, environment, model
from boneage_trainer.train.autotune import autotune
from boneage_trainer.train.device import Device
from boneage_trainer.train.feed import FeatureCache, Feed, split_batches
from boneage_trainer.train.model import Networks
from boneage_trainer.train.recorder import Recorder
from boneage_trainer.train.session import TrainingSession, TrainingStopped
from boneage_trainer.train.step import Phase, compute_loss, image_size_px, is_cacheable, view_images

_PENDING = 2
"""How many steps may be under way before their loss is asked for: a GPU never waits for Python."""


def train(job: Job, pack: Pack, session: TrainingSession, source: RunFolder) -> None:
    """Trains from the checkpoint in `source`, if any, evaluates, and leaves the whole run folder behind.

    Raises:
        TrainingStopped: asked to, or out of time; everything up to the last whole epoch is saved.
        ContractError: the data, the weights or the checkpoint do not fit the job.
        OSError: the last epochs could not be written.
    """
    cv2.setNumThreads(1)
    # A job may leave its images open; from here on it names those it has, so that no other leg takes others.
    job = dataclasses.replace(job, data={**job.data, **PackFolder(pack.folder).job_data()})
    if job.train.deterministic:
        environment.make_deterministic()
    parts = make_split(job.train.split, pack.ids, pack.folder)
    found = device.find_device()
    session.handle_signals()
    found.check_batch(job.train.batch_size)
    chosen, measured = autotune(found, job.train, pack, parts, source)
    while smaller := _attempt(job, pack, parts, session, source, chosen, measured):
        chosen = smaller
        source = session.folder if session.folder.last.exists() else source
        keras.utils.clear_session()
        gc.collect()


def _attempt(
    job: Job, pack: Pack, parts: Split, session: TrainingSession, source: RunFolder, chosen: Device, measured: list[Any]
) -> Device | None:
    """Trains to the end, or returns the device to try again with where the memory was too small."""
    try:
        trainer = Trainer(job, pack, parts, session, chosen)
        trainer.go_on_from(source)
        times = {"startup_s": session.elapsed_s}
        session.write_state("running")
        trainer.all_epochs()
        finish(trainer, times, measured)
    except Exception as error:
        if not device.is_out_of_memory(error):
            raise
        return _smaller(chosen, job.train.batch_size)
    return None


def _smaller(chosen: Device, batch_size: int) -> Device:
    smaller = chosen.with_smaller_batches(batch_size)
    if smaller is None:
        raise ContractError(
            f"out of memory with {batch_size // chosen.accumulate} images at a time, which cannot be halved; "
            "set a smaller train.batch_size, or take a pack of smaller images"
        )
    print(
        f"out of memory: going on with {batch_size // smaller.accumulate} images at a time, "
        f"the gradients of {smaller.accumulate} parts added", flush=True,
    )  # fmt: skip
    return smaller


class Trainer:
    """One leg's networks and data; what it reaches is the recorder's."""

    def __init__(self, job: Job, pack: Pack, parts: Split, session: TrainingSession, chosen: Device) -> None:
        config = job.train.for_size(pack.images.shape[1])
        keras.utils.set_random_seed(config.seed)
        self.job, self.config, self.pack, self.parts = job, config, pack, parts
        self.session, self.device = session, chosen
        self.recorder = Recorder(job, config.small_epochs, session, chosen.settings)
        self.feed = Feed(pack, parts.train, config.batch_size, config.seed, config.augment == "light")
        with chosen.scope():
            self.networks = model.build_networks(
                config, self._open_size(), pack.months[parts.train], pack.folder, chosen.precision
            )
        self.predict_batch = max(chosen.local, 2 * config.batch_size // chosen.accumulate)
        self.cache = self._cache() if is_cacheable(config) else None
        self.phase = self._phase(1)
        self.first_epoch = 1

    def _open_size(self) -> int | None:
        return None if self.config.small_epochs else self.pack.images.shape[1]

    def _phase(self, epoch: int) -> Phase:
        return Phase(self.networks, self.config, self.device, self.feed, self.cache, epoch)

    def _cache(self) -> FeatureCache | None:
        """Room for the features of training and validation, or None where there is none."""
        body, predict = self.networks.body, Predictor(self.networks.body, self.device)

        def compute(rows: Sequence[int], draw: int) -> Iterator[Any]:
            for _, images in self.feed.made(split_batches(rows, self.predict_batch), draw):
                self._stop_if(self.session.stop_reason())
                yield predict([images])

        dtype = keras.ops.convert_to_numpy(
            keras.ops.zeros(1, body.output.dtype)
        ).dtype  # numpy takes no bfloat16 scalar
        count = len(self.parts.train) * max(1, self.config.cached_views) + len(self.parts.validation)
        cache = FeatureCache(compute, tuple(body.output.shape[1:]), dtype, count, self.session.folder.root)
        if cache.fits():
            return cache
        print(f"no room for {cache.total_bytes / 1e9:.1f} GB of features: computing them anew each epoch", flush=True)
        return None

    # ------------------------------------------------------------------------------------ resume
    def go_on_from(self, source: RunFolder) -> None:
        """Takes over the checkpoint of `source`, an earlier leg's folder or this one, if it has one."""
        if source.last.exists():
            values = self.recorder.take(source)
            self._enter(self.recorder.progress.epoch)
            checkpoint.assign_values(self._variables(), values, source.last)
            print(f"going on after epoch {self.recorder.progress.epoch} of {self.config.epochs}", flush=True)
        epoch = self.recorder.progress.epoch
        if self.device.any(self.device.mean(epoch) != epoch):
            raise ContractError(f"this machine goes on from epoch {epoch}, others do not: give all the same --resume")
        self.first_epoch, self.session.epoch = epoch + 1, epoch

    def _enter(self, epoch: int) -> None:
        """Makes the phase of `epoch` the current one."""
        if not self.phase.first <= epoch <= self.phase.last:
            self.phase = self._phase(epoch)

    def _variables(self) -> list[Any]:
        return [*self.networks.core.variables, *self.phase.steps.variables]

    # ------------------------------------------------------------------------------------ epochs
    def all_epochs(self) -> None:
        try:
            for epoch in range(self.first_epoch, self.config.epochs + 1):
                if self.recorder.has_stalled:
                    print(f"no better validation MAE since epoch {self.recorder.progress.best_epoch}: done", flush=True)
                    break
                self._stop_if(self.session.exceeded_limit(self._forecast_s()))
                self._enter(epoch)
                self._epoch(epoch)
        finally:
            self.recorder.saver.drain()

    def _forecast_s(self) -> float:
        """What one more epoch takes, by the slowest of this leg; nothing is known before its first."""
        mine = self.recorder.progress.history[self.first_epoch - 1 :]
        return max((line["epoch_s"] for line in mine), default=0.0)

    def _stop_if(self, reason: str) -> None:
        """Raises TrainingStopped for a reason of this machine or of another one, at the same step on all."""
        if self.device.any(bool(reason)):
            raise TrainingStopped(reason or "another machine stopped")

    def _epoch(self, epoch: int) -> None:
        began_s = time.monotonic()
        line: dict[str, Any] = {"epoch": epoch, "leg": self.session.leg, "images": self.feed.images}
        line.update(self._steps(epoch))
        with self.phase.steps:
            line.update(self._validate(epoch))
            mae_months = line["val_mae_months"]
            if is_best := self.recorder.is_best(mae_months):
                self.recorder.set_best(epoch, mae_months, checkpoint.copy_values(self.networks.core.variables))
        saving_s = time.monotonic()
        self.recorder.saver.drain()
        values = checkpoint.copy_values(self._variables())
        line["checkpoint_s"] = time.monotonic() - saving_s
        line["epoch_s"] = time.monotonic() - began_s
        self.recorder.commit(line, values, is_best)

    def _steps(self, epoch: int) -> dict[str, float]:
        """One pass over the training set; waiting for data, computing, and getting ready to, apart."""
        load_s, compute_s, compile_s, sums, pending = 0.0, 0.0, 0.0, np.zeros(2), deque[Any]()
        is_first, mark_s = self._traces_in(epoch), time.monotonic()
        for rows, given in self.phase.batches(epoch):
            self._stop_if(self.session.stop_reason())
            ready_s = time.monotonic()
            pending.append(self.phase.steps(self.inputs(given, rows), self._target(rows)))
            while len(pending) > (0 if is_first else _PENDING):
                sums += [float(value) for value in pending.popleft()]
            done_s = time.monotonic()
            if is_first:  # waits for features and for the trace of the step
                compile_s = done_s - mark_s
            else:
                load_s, compute_s = load_s + ready_s - mark_s, compute_s + done_s - ready_s
            is_first, mark_s = False, done_s
        for answer in pending:
            sums += [float(value) for value in answer]
        return self._figures(sums / self.feed.steps, load_s, compute_s + time.monotonic() - mark_s, compile_s)

    def _traces_in(self, epoch: int) -> bool:
        """Whether the first step of `epoch` has to be traced first: a new leg, phase or size."""
        return epoch in (self.first_epoch, self.phase.first, self.config.small_epochs + 1)

    def _figures(self, means: Any, load_s: float, compute_s: float, compile_s: float) -> dict[str, float]:
        images = self.feed.images - (self.config.batch_size if compile_s else 0)
        return {
            "loss": means[0],
            "mae_months": means[1] * self.networks.sd_months,
            "learning_rate": float(self.phase.steps.optimizer.learning_rate),
            "compile_s": compile_s,
            "load_s": load_s,
            "compute_s": compute_s,
            "load_ms_per_image": 1000 * load_s / max(1, images),
            "compute_ms_per_image": 1000 * compute_s / max(1, images),
        }

    def inputs(self, given: Any, rows: Any) -> list[Any]:
        """What a network takes for `rows`: their images or features (b, ...), and sex (b, 1) if it is used."""
        return [given, self.pack.male[rows][:, None]] if self.config.use_sex else [given]

    def _target(self, rows: Any) -> Any:
        return self.networks.target(self.pack.months[rows])[:, None]

    # -------------------------------------------------------------------------------- validation
    def _validate(self, epoch: int) -> dict[str, float]:
        began_s = time.monotonic()
        months = self.pack.months[self.parts.validation]
        errors = self._predicted(epoch) - self.networks.target(months)
        return {
            "val_mae_months": float(np.abs(errors).mean() * self.networks.sd_months),
            "val_loss": float(compute_loss(self.config.loss, errors)),
            "validate_s": time.monotonic() - began_s,
        }

    def _predicted(self, epoch: int) -> Any:
        """Targets (n,) of the validation set, in its order."""
        answers = []
        for some, given in self._validation(epoch):
            self._stop_if(self.session.stop_reason())
            answers.append(self.phase.predict(self.inputs(given, some))[:, 0])
        return np.concatenate(answers)

    def _validation(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """Rows, and images or features, of the validation set, batch by batch."""
        batches, cache = split_batches(self.parts.validation, self.predict_batch), self.phase.cache
        if not cache:
            yield from self.feed.made(batches, 0, image_size_px(self.config, epoch))
            return
        features = cache.of("validation", self.parts.validation, 0)
        for some in batches:
            yield some, features[some]


# == finish: The end of a training: the best weights as a model, its predictions, and what they are worth.


def finish(trainer: Trainer, times: dict[str, float], measured: list[Any]) -> None:
    """Evaluates the best epoch's weights and leaves model, predictions, evaluation and environment.

    Raises:
        OSError: something could not be written.
    """
    began_s, config, folder = time.monotonic(), trainer.config, trainer.session.folder
    trainer.recorder.settle()
    networks = model.build_networks(
        config.without_weights(), trainer.pack.images.shape[1], trainer.pack.months[trainer.parts.train],
        trainer.pack.folder, "float32",
    )  # fmt: skip
    checkpoint.assign_values(networks.core.variables, trainer.recorder.best[1], folder.best)
    parts, pack = trainer.parts, trainer.pack
    predictions = {"validation": validated(trainer, networks), "test": predict(trainer, networks.full, parts.test)}
    networks.full.save(folder.model)
    looks = gradcam.write(folder, networks.full, pack, parts.test, predictions["test"])
    evaluate.write(folder, pack, parts, predictions, looks)
    splits.write_split_csv(folder, pack, parts)
    mine = trainer.recorder.progress.history[trainer.first_epoch - 1 :]
    for key in ("compile_s", "load_s", "compute_s", "validate_s", "checkpoint_s"):
        times[key] = sum(line[key] for line in mine)
    times["cpu_s"] = sum(os.times()[:2])
    times.update(evaluate_s=time.monotonic() - began_s, total_s=trainer.session.elapsed_s, epochs_this_leg=len(mine))
    environment.write_environment(folder, trainer.job, trainer.device, measured, times)
    model_card.write(folder, trainer.job)


def validated(trainer: Trainer, networks: Networks) -> Any:
    """Ages of the validation set, (views, n); from the training's own features where they are the model's."""
    rows, cache = trainer.parts.validation, trainer.phase.cache
    if not cache or trainer.config.test_views > 1 or trainer.device.precision != "float32":
        return predict(trainer, networks.full, rows)
    answer, features = Predictor(networks.head, trainer.device.with_(jit=False)), cache.of("validation", rows, 0)
    batches = split_batches(rows, trainer.predict_batch)
    targets = np.concatenate([answer(trainer.inputs(features[some], some))[:, 0] for some in batches])
    return networks.months(targets)[None]


def predict(trainer: Trainer, full: Any, rows: list[int]) -> Any:
    """Ages in months, float32 (views, n), in the order of `rows`."""
    feed = Feed(trainer.pack, rows, trainer.predict_batch, 0, augment=False)
    answers: list[list[Any]] = [[] for _ in range(trainer.config.test_views)]
    answer = Predictor(full, trainer.device.with_(jit=False))
    for some, images in feed.made(split_batches(rows, trainer.predict_batch), 0):
        trainer.session.raise_if_stopped()
        for number, found in enumerate(answers):
            found.append(answer(trainer.inputs(view_images(images, number), some))[:, 0])
    return np.stack([np.concatenate(found) for found in answers])

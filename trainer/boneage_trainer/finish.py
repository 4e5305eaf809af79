"""The end of a training: the best weights as a model, its predictions, and what they are worth."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from boneage_trainer import card, checkpoint, environment, evaluate, gradcam, model, seen
from boneage_trainer.feed import Feed, in_batches
from boneage_trainer.model import Networks
from boneage_trainer.phases import viewed
from boneage_trainer.predictor import Predictor

if TYPE_CHECKING:
    from boneage_trainer.training import Trainer


def finish(trainer: Trainer, times: dict[str, float], measured: list[Any]) -> None:
    """Evaluates the best epoch's weights and leaves model, predictions, evaluation and environment.

    Raises:
        OSError: something could not be written.
    """
    began_s, config, folder = time.monotonic(), trainer.config, trainer.session.folder
    trainer.recorder.settle()
    networks = model.build(
        config.without_weights(), trainer.pack.images.shape[1], trainer.pack.months[trainer.parts.train],
        trainer.pack.folder, "float32",
    )  # fmt: skip
    checkpoint.fill(networks.core.variables, trainer.recorder.best[1], folder.best)
    parts, pack = trainer.parts, trainer.pack
    predictions = {"validation": validated(trainer, networks), "test": predict(trainer, networks.full, parts.test)}
    networks.full.save(folder.model)
    looks = gradcam.write(folder, networks.full, pack, parts.test, predictions["test"])
    evaluate.write(folder, pack, parts, predictions, looks)
    seen.write(folder, pack, parts)
    mine = trainer.recorder.progress.history[trainer.first_epoch - 1 :]
    for key in ("compile_s", "load_s", "compute_s", "validate_s", "checkpoint_s"):
        times[key] = sum(line[key] for line in mine)
    times["cpu_s"] = sum(os.times()[:2])
    times.update(evaluate_s=time.monotonic() - began_s, total_s=trainer.session.elapsed_s, epochs_this_leg=len(mine))
    environment.write(folder, trainer.job, trainer.device, measured, times)
    card.write(folder, trainer.job)


def validated(trainer: Trainer, networks: Networks) -> Any:
    """Ages of the validation set, (views, n); from the training's own features where they are the model's."""
    rows, cache = trainer.parts.validation, trainer.phase.cache
    if not cache or trainer.config.test_views > 1 or trainer.device.precision != "float32":
        return predict(trainer, networks.full, rows)
    answer, features = Predictor(networks.head, trainer.device.with_(jit=False)), cache.of("validation", rows, 0)
    batches = in_batches(rows, trainer.predict_batch)
    targets = np.concatenate([answer(trainer.inputs(features[some], some))[:, 0] for some in batches])
    return networks.months(targets)[None]


def predict(trainer: Trainer, full: Any, rows: list[int]) -> Any:
    """Ages in months, float32 (views, n), in the order of `rows`."""
    feed = Feed(trainer.pack, rows, trainer.predict_batch, 0, augment=False)
    answers: list[list[Any]] = [[] for _ in range(trainer.config.test_views)]
    answer = Predictor(full, trainer.device.with_(jit=False))
    for some, images in feed.made(in_batches(rows, trainer.predict_batch), 0):
        trainer.session.check()
        for number, found in enumerate(answers):
            found.append(answer(trainer.inputs(viewed(images, number), some))[:, 0])
    return np.stack([np.concatenate(found) for found in answers])

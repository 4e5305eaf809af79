"""One training step on whatever devices there are: gradients, optimizer, averaged weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from boneage_trainer.config import TrainConfig
from boneage_trainer.inference.model import Predictor, of_model, view
from boneage_trainer.train.device import Device
from boneage_trainer.train.feed import FeatureCache, Feed, RowNumbers
from boneage_trainer.train.model import Networks

_LOSS_SCALE = 1024.0
"""For float16, whose smallest gradients would become zero; what overflows is left out of its step."""


def compute_loss(kind: str, errors: Any) -> Any:
    """The mean loss of `errors` (predicted minus actual, in targets), a tensor or an array."""
    size = abs(errors)
    if kind == "mae":
        return keras.ops.mean(size)
    if kind == "mse":
        return keras.ops.mean(size**2)
    return keras.ops.mean(keras.ops.where(size <= 0.5, size**2 / 2, 0.5 * (size - 0.25)))


def build_optimizer(config: TrainConfig, learning_rate: float, steps_per_epoch: int, epochs: int) -> Any:
    """AdamW with a linear warm-up and, if asked, a cosine down to zero over all `epochs`."""
    total = steps_per_epoch * epochs
    warmup = min(steps_per_epoch * config.warmup_epochs, total // 2)
    rate: Any = learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup else learning_rate,
            decay_steps=max(1, total - warmup),
            warmup_target=learning_rate if warmup else None,
            warmup_steps=warmup,
        )
    optimizer = keras.optimizers.AdamW(learning_rate=rate, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


class TrainStep:
    """Trains `model` step by step; a call returns loss and mean absolute error, in targets, as they become known."""

    def __init__(self, model: Any, optimizer: Any, config: TrainConfig, device: Device, average_steps: float) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self._loss, self._average_steps = config.loss, average_steps
        self._scale = _LOSS_SCALE if device.precision == "mixed_float16" else 1.0
        optimizer.build(model.trainable_variables)
        self._averaged = [variable for variable in model.variables if _is_float(variable)] if average_steps else []
        self.averages = [_replica_local(variable) for variable in self._averaged]
        one = tf.function(self._on_replica, jit_compile=device.jit and device.replicas == 1)
        self._run = tf.function(lambda inputs, target: device.everywhere(one, (inputs, target)))

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint needs beside the model's own."""
        return [*self.optimizer.variables, *self.averages]

    def __call__(self, inputs: Sequence[Any], target: Any) -> tuple[Any, Any]:
        loss, error = self._run(*self.device.shared((tuple(inputs), target)))
        return loss, error

    def _on_replica(self, inputs: Any, target: Any) -> tuple[Any, Any]:
        loss, error, gradients = self._gradients(inputs, target)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        self._average()
        return loss, error

    # ---------------------------------------------------------------------------------- gradients
    def _gradients(self, inputs: Any, target: Any) -> tuple[Any, Any, list[Any]]:
        """Means over the batch, in as many parts as the device's memory asks for, one after the other."""
        parts = self.device.accumulate
        if parts == 1:
            return self._of_part(inputs, target)
        inputs, target = tf.nest.map_structure(
            lambda one: tf.reshape(one, (parts, one.shape[0] // parts, *one.shape[1:])), (inputs, target)
        )
        zeros = [tf.zeros(variable.shape) for variable in self.model.trainable_variables]

        def add(part: Any, loss: Any, error: Any, sums: list[Any]) -> tuple[Any, ...]:
            found = self._of_part(tuple(one[part] for one in inputs), target[part])
            grown = [total + gradient for total, gradient in zip(sums, found[2], strict=True)]
            return part + 1, loss + found[0], error + found[1], grown

        start = (tf.constant(0), tf.constant(0.0), tf.constant(0.0), zeros)
        _, loss, error, sums = tf.while_loop(lambda part, *_: part < parts, add, start, parallel_iterations=1)
        return loss / parts, error / parts, [total / parts for total in sums]

    def _of_part(self, inputs: Any, target: Any) -> tuple[Any, Any, list[Any]]:
        with tf.GradientTape() as tape:
            errors = of_model(self.model, inputs, training=True) - target
            loss = compute_loss(self._loss, errors)
            scaled = loss * (self._scale / self.device.replicas)
        found = tape.gradient(scaled, [variable.value for variable in self.model.trainable_variables])
        return loss, tf.reduce_mean(tf.abs(errors)), [self._unscaled(gradient) for gradient in found]

    def _unscaled(self, gradient: Any) -> Any:
        if self._scale == 1.0:
            return gradient
        return tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient)) / self._scale

    # ----------------------------------------------------------------------------------- averages
    def _average(self) -> None:
        """Exponential averages of weights and batch statistics; short at first, so that the start is soon forgotten."""
        if not self.averages:
            return
        step = tf.cast(self.optimizer.iterations.value, tf.float32)
        share = tf.maximum(1 / self._average_steps, 9 / (step + 10))
        for average, variable in zip(self.averages, self._averaged, strict=True):
            average.assign_add(share * (tf.convert_to_tensor(variable.value) - average))

    def __enter__(self) -> None:
        """While entered, the model holds the averaged weights in place of the trained ones."""
        self._kept = [np.array(variable) for variable in self._averaged]
        for average, variable in zip(self.averages, self._averaged, strict=True):
            variable.assign(average.numpy())

    def __exit__(self, *_: object) -> None:
        for variable, value in zip(self._averaged, self._kept, strict=True):
            variable.assign(value)


def _is_float(variable: Any) -> bool:
    """All but the counters of random generators."""
    return str(variable.dtype).startswith("float")


def _replica_local(variable: Any) -> Any:
    """A copy that every replica updates by itself; batch statistics differ among them and are averaged when read."""
    return tf.Variable(
        np.asarray(variable), trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.MEAN,
    )  # fmt: skip


# == phases: A phase of a training: which weights learn, from images or from features that were computed once.


class Phase:
    """Epochs `first` to `last`, in which `model` learns.

    With a `cache` the model is the head and its input are features; without, images.
    """

    def __init__(
        self,
        networks: Networks,
        config: TrainConfig,
        device: Device,
        feed: Feed,
        cache: FeatureCache | None,
        epoch: int,
    ) -> None:
        alone, whole = config.backbone_epochs
        self.frozen = epoch <= alone
        self.first, self.last = (1, alone) if self.frozen else (alone + 1, alone + whole)
        self.config, self.feed = config, feed
        self.cache = cache if self.frozen else None
        networks.freeze(self.frozen)
        self.model = networks.head if self.cache else networks.core
        rate = config.head_learning_rate if self.frozen and config.train_backbone else config.learning_rate
        with device.scope():
            optimizer = build_optimizer(config, rate, feed.steps, self.last - self.first + 1)
            self.steps = TrainStep(self.model, optimizer, config, device, config.average_epochs * feed.steps)
        self.predict = Predictor(self.model, device)

    def batches(self, epoch: int) -> Iterator[tuple[RowNumbers, Any]]:
        """Rows (b,) and images or features (b, ...) of each batch of `epoch`."""
        draw = augmentation_draw(self.config, epoch, self.frozen)
        if not self.cache:
            yield from self.feed.epoch(epoch, draw, image_size_px(self.config, epoch))
            return
        features = self.cache.of("train", self.feed.rows, draw)
        for rows in self.feed.order(epoch):
            yield rows, features[rows]


def augmentation_draw(config: TrainConfig, epoch: int, frozen: bool) -> int:
    """Which augmentation an epoch sees: none (0), its own, or one of the views that are cached, in turn."""
    if config.augment == "none":
        return 0
    return (epoch - 1) % config.cached_views + 1 if frozen and config.cached_views else epoch


def image_size_px(config: TrainConfig, epoch: int) -> int | None:
    """The side of the images an epoch trains and validates on; None: that of the pack."""
    return config.small_px if epoch <= config.small_epochs else None


def is_cacheable(config: TrainConfig) -> bool:
    """Whether some epochs see a frozen backbone's features of images that come again."""
    comes_again = config.augment == "none" or config.cached_views > 0
    return config.cache_features and comes_again and config.backbone_epochs[0] > 0


def view_images(images: Any, number: int) -> Any:
    """View `number` of images (b, px, px, 1)."""
    return images if number == 0 else view(images[..., 0], number)[..., None]

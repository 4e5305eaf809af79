"""One training step on any number of devices, and the phases of a run: which weights learn, and from what.

A step computes gradients, applies the optimizer and averages the weights. A phase trains the head alone or the
whole network, from images or from cached features of a frozen backbone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from boneage_trainer.config import TrainConfig
from boneage_trainer.inference.model import BatchPredictor, call_model
from boneage_trainer.train.device import Device
from boneage_trainer.train.feed import FeatureCache, Feed, RowNumbers
from boneage_trainer.train.model import Networks

_LOSS_SCALE = 1024.0
"""For float16, whose smallest gradients would become zero; a gradient that overflows is set to zero for its step."""


def compute_loss(kind: str, errors: Any) -> Any:
    """The mean loss of `errors` (predicted minus actual, in targets), a tensor or an array."""
    size = abs(errors)
    if kind == "mae":
        return keras.ops.mean(size)
    if kind == "mse":
        return keras.ops.mean(size**2)
    return keras.ops.mean(keras.ops.where(size <= 0.5, size**2 / 2, 0.5 * (size - 0.25)))


def build_optimizer(config: TrainConfig, learning_rate: float, steps_per_epoch: int, epochs: int) -> Any:
    """AdamW with a linear warm-up and, if configured, cosine decay to zero over all `epochs`."""
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
    """Trains `model` on one batch per call; returns loss and mean absolute error, in targets, as tensors.

    `average_steps` is the time constant of the averaged weights; 0: none are kept.
    """

    def __init__(self, model: Any, optimizer: Any, config: TrainConfig, device: Device, average_steps: float) -> None:
        self.model, self.optimizer, self.device = model, optimizer, device
        self._loss, self._average_steps = config.loss, average_steps
        self._scale = _LOSS_SCALE if device.precision == "mixed_float16" else 1.0
        optimizer.build(model.trainable_variables)
        # All but the counters of random generators.
        floats = [variable for variable in model.variables if str(variable.dtype).startswith("float")]
        self._averaged = floats if average_steps else []
        # A copy per replica: batch statistics differ among replicas, and are averaged when they are read.
        self.averages = [
            tf.Variable(
                np.asarray(variable), trainable=False,
                synchronization=tf.VariableSynchronization.ON_READ, aggregation=tf.VariableAggregation.MEAN,
            )
            for variable in self._averaged
        ]  # fmt: skip
        on_replica = tf.function(self._step_on_replica, jit_compile=device.jit and device.replicas == 1)
        self._run = tf.function(lambda inputs, target: device.run_on_replicas(on_replica, (inputs, target)))

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint needs beside the model's own."""
        return [*self.optimizer.variables, *self.averages]

    def __call__(self, inputs: Sequence[Any], target: Any) -> tuple[Any, Any]:
        loss, error = self._run(*self.device.distribute((tuple(inputs), target)))
        return loss, error

    def _step_on_replica(self, inputs: Any, target: Any) -> tuple[Any, Any]:
        loss, error, gradients = self._accumulate_gradients(inputs, target)
        self.optimizer.apply(gradients, self.model.trainable_variables)
        if self.averages:  # exponential, of weights and batch statistics; short at first, to forget the start soon
            step = tf.cast(self.optimizer.iterations.value, tf.float32)
            share = tf.maximum(1 / self._average_steps, 9 / (step + 10))
            for average, variable in zip(self.averages, self._averaged, strict=True):
                average.assign_add(share * (tf.convert_to_tensor(variable.value) - average))
        return loss, error

    def _accumulate_gradients(self, inputs: Any, target: Any) -> tuple[Any, Any, list[Any]]:
        """Means over the batch, which is computed in as many parts as the device's memory requires, one by one."""
        parts = self.device.accumulate
        if parts == 1:
            return self._compute_gradients(inputs, target)
        inputs, target = tf.nest.map_structure(
            lambda array: tf.reshape(array, (parts, array.shape[0] // parts, *array.shape[1:])), (inputs, target)
        )
        zeros = [tf.zeros(variable.shape) for variable in self.model.trainable_variables]

        def add(part: Any, loss: Any, error: Any, sums: list[Any]) -> tuple[Any, ...]:
            inputs_of_part = tuple(array[part] for array in inputs)
            part_loss, part_error, gradients = self._compute_gradients(inputs_of_part, target[part])
            sums = [total + gradient for total, gradient in zip(sums, gradients, strict=True)]
            return part + 1, loss + part_loss, error + part_error, sums

        start = (tf.constant(0), tf.constant(0.0), tf.constant(0.0), zeros)
        _, loss, error, sums = tf.while_loop(lambda part, *_: part < parts, add, start, parallel_iterations=1)
        return loss / parts, error / parts, [total / parts for total in sums]

    def _compute_gradients(self, inputs: Any, target: Any) -> tuple[Any, Any, list[Any]]:
        with tf.GradientTape() as tape:
            errors = call_model(self.model, inputs, training=True) - target
            loss = compute_loss(self._loss, errors)
            scaled = loss * (self._scale / self.device.replicas)
        gradients = tape.gradient(scaled, [variable.value for variable in self.model.trainable_variables])
        if self._scale != 1.0:
            gradients = [
                tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient)) / self._scale
                for gradient in gradients
            ]
        return loss, tf.reduce_mean(tf.abs(errors)), gradients

    @contextlib.contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Within it, the model holds the averaged weights in place of the trained ones."""
        trained = [np.array(variable) for variable in self._averaged]
        for average, variable in zip(self.averages, self._averaged, strict=True):
            variable.assign(average.numpy())
        try:
            yield
        finally:
            for variable, value in zip(self._averaged, trained, strict=True):
                variable.assign(value)


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
        head_epochs, full_epochs = config.backbone_epochs
        self.frozen = epoch <= head_epochs
        self.first, self.last = (1, head_epochs) if self.frozen else (head_epochs + 1, head_epochs + full_epochs)
        self.config, self.feed = config, feed
        self.cache = cache if self.frozen else None
        networks.freeze(self.frozen)
        self.model = networks.head if self.cache else networks.core
        rate = config.head_learning_rate if self.frozen and config.train_backbone else config.learning_rate
        with device.scope():
            optimizer = build_optimizer(config, rate, feed.steps, self.last - self.first + 1)
            self.step = TrainStep(self.model, optimizer, config, device, config.average_epochs * feed.steps)
        self.predict = BatchPredictor(self.model, device)

    def batches(self, epoch: int) -> Iterator[tuple[RowNumbers, Any]]:
        """Row numbers (b,) and images or features (b, ...) of each batch of `epoch`."""
        draw = augmentation_draw(self.config, epoch, self.frozen)
        if not self.cache:
            yield from self.feed.load_epoch(epoch, draw, image_size_px(self.config, epoch))
            return
        features = self.cache.get("train", self.feed.rows, draw)
        for rows in self.feed.batch_rows(epoch):
            yield rows, features[rows]


def augmentation_draw(config: TrainConfig, epoch: int, frozen: bool) -> int:
    """The number of the augmentation that an epoch uses: none (0), its own, or one of the cached views in turn."""
    if config.augment == "none":
        return 0
    return (epoch - 1) % config.cached_views + 1 if frozen and config.cached_views else epoch


def image_size_px(config: TrainConfig, epoch: int) -> int | None:
    """The side of the images that an epoch trains and validates on; None: that of the pack."""
    return config.small_px if epoch <= config.small_epochs else None


def is_cacheable(config: TrainConfig) -> bool:
    """Whether some epochs use a frozen backbone's features of the same images again."""
    repeats_images = config.augment == "none" or config.cached_views > 0
    return config.cache_features and repeats_images and config.backbone_epochs[0] > 0

"""The network: preprocessing, body and the way back to months in one Keras model of built-in layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from boneage_trainer.contract import TrainConfig

_WIDTHS = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Networks:
    """`core` maps images (and sex) to z-scores and is trained; `full` shares it and gives months."""

    core: Any
    full: Any
    mean_months: float
    sd_months: float

    def z(self, months: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return ((months - self.mean_months) / self.sd_months).astype(np.float32)


def build(config: TrainConfig, image_size_px: int, mean_months: float, sd_months: float) -> Networks:
    """A residual network for uint8 gray images (px, px, 1) and, if asked, sex (1,), male 1 and female 0.

    `mean_months` and `sd_months` are those of the training ages.
    """
    image = keras.Input((image_size_px, image_size_px, 1), dtype="uint8", name="image")
    inputs = [image]
    x = _body(_preprocess(image), config.width)
    if config.use_sex:
        male = keras.Input((1,), name="male")
        inputs.append(male)
        centred = layers.Rescaling(2.0, -1.0)(male)
        x = layers.Concatenate()([x, layers.Dense(16, activation="relu")(centred)])
    x = layers.Dense(8 * config.width, activation="relu")(x)
    x = layers.Dropout(config.dropout, seed=config.seed)(x)
    z = layers.Dense(1, name="z")(x)
    core = keras.Model(inputs, z)
    full = keras.Model(inputs, layers.Rescaling(sd_months, mean_months, name="months")(z))
    return Networks(core, full, mean_months, sd_months)


def _preprocess(image: Any) -> Any:
    """Each image to mean 0 and variance 1; a constant one becomes zeros, never NaN."""
    return layers.LayerNormalization(axis=[1, 2, 3], center=False, scale=False)(layers.Rescaling(1 / 255)(image))


def _body(x: Any, width: int) -> Any:
    x = _normed(layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x))
    for stage, factor in enumerate(_WIDTHS):
        x = _block(x, width * factor, stride=2 if stage else 1)
    return layers.GlobalAveragePooling2D()(x)


def _block(x: Any, filters: int, stride: int) -> Any:
    y = _normed(layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x))
    y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
    y = layers.BatchNormalization(momentum=0.95)(y)
    if stride > 1 or x.shape[-1] != filters:
        x = layers.AveragePooling2D(stride, padding="same")(x) if stride > 1 else x
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
    return layers.ReLU()(layers.Add()([x, y]))


def _normed(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))


def compiled(networks: Networks, config: TrainConfig, steps_per_epoch: int) -> None:
    """Huber loss on z-scores; AdamW with a linear warm-up, a cosine to zero, and averaged weights."""
    total = steps_per_epoch * config.epochs
    warmup = min(steps_per_epoch * config.warmup_epochs, total // 2)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(1, total - warmup),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        learning_rate=rate, weight_decay=config.weight_decay, use_ema=True, ema_momentum=_ema_momentum(steps_per_epoch)
    )
    networks.core.compile(optimizer=optimizer, loss=keras.losses.Huber(delta=0.5), metrics=["mean_absolute_error"])
    optimizer.build(networks.core.trainable_variables)


def _ema_momentum(steps_per_epoch: int) -> float:
    """An average over about half an epoch, so that short trainings are not held back by their first weights."""
    return float(np.clip(1 - 2 / steps_per_epoch, 0.5, 0.999))


class Averaged:
    """While entered, the model holds the averaged weights in place of the trained ones."""

    def __init__(self, core: Any) -> None:
        self.pairs = list(zip(core.trainable_variables, core.optimizer._model_variables_moving_average, strict=True))
        self.kept: list[Any] = []

    def __enter__(self) -> None:
        self.kept = [np.array(variable) for variable, _ in self.pairs]
        for variable, average in self.pairs:
            variable.assign(average)

    def __exit__(self, *_: object) -> None:
        for (variable, _), value in zip(self.pairs, self.kept, strict=True):
            variable.assign(value)

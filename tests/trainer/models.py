"""Tiny regressors whose predictions can be computed by hand."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from boneage_trainer.evaluation.gradcam import FEATURE_MAP


def brightness(px: int, sex: bool = True, named: str = FEATURE_MAP, frozen: bool = False) -> Any:
    """Months = 100 x mean gray (0..1), plus 10 for boys where `sex`; its feature map has (px / 4)² cells."""
    image = keras.Input((px, px, 1), dtype="uint8", name="image")
    x = layers.AveragePooling2D(4)(layers.Rescaling(1 / 255)(image))
    x = layers.Identity(name=named)(layers.Conv2D(2, 1, use_bias=False, kernel_initializer="ones", name="twice")(x))
    x = layers.GlobalAveragePooling2D()(x)
    male = [keras.Input((1,), dtype="float32", name="male")] if sex else []
    x = layers.Concatenate()([x, *male]) if sex else x
    model = keras.Model([image, *male], layers.Dense(1, name="months")(x))
    weights = [[50.0], [50.0], [10.0]] if sex else [[50.0], [50.0]]
    model.get_layer("months").set_weights([np.array(weights, np.float32), np.zeros(1, np.float32)])
    model.trainable = not frozen
    return model


def of_corner(px: int) -> Any:
    """A regressor that ignores the image: its Grad-CAM is hot in cell (5, 5) only."""
    image = keras.Input((px, px, 1), dtype="uint8", name="image")
    male = keras.Input((1,), dtype="float32", name="male")
    side = px // 4
    x = layers.Flatten()(layers.AveragePooling2D(4)(layers.Rescaling(1 / 255)(image)))
    x = layers.Dense(side * side, name="blind")(x)
    x = layers.Flatten()(layers.Identity(name=FEATURE_MAP)(layers.Reshape((side, side, 1))(x)))
    answer = layers.Dense(1, kernel_initializer="ones", name="months")
    model = keras.Model([image, male], answer(layers.Concatenate()([x, male])))
    spot = np.zeros((side, side), np.float32)
    spot[5, 5] = 1
    model.get_layer("blind").set_weights([np.zeros((side * side,) * 2, np.float32), spot.ravel()])
    return model

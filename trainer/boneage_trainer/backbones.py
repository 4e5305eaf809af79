"""Keras' own networks as backbones: how their pixels enter, and their published weights, checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras import layers

from boneage_trainer.config import TrainConfig
from boneage_trainer.errors import ContractError


@dataclass(frozen=True, slots=True)
class Application:
    """A network of keras.applications without its top.

    `pixels`: ``caffe`` (BGR means taken off), ``tf`` (-1..1) or ``own`` (0..255; it scales them itself).
    `digest` is Keras' own for the weights file without the top, md5 or sha256 by its length.
    """

    name: str
    pixels: str
    digest: str


APPLICATIONS = {
    "vgg16": Application("VGG16", "caffe", "6d6bbae143d832006294945121d1f1fc"),
    "xception": Application("Xception", "tf", "b0042744bf5b25fce3cb969f33bebb97"),
    "efficientnetv2b0": Application("EfficientNetV2B0", "own", "893217f2bb855e2983157299931e43ff"),
    "efficientnetv2b3": Application("EfficientNetV2B3", "own", "f6abf7b5849ac99a89b50dd3fd532856"),
    "convnexttiny": Application(
        "ConvNeXtTiny", "own", "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"
    ),
}
_BGR_MEANS = [103.939, 116.779, 123.68]  # of ImageNet, as Keras' "caffe" mode takes them off


def scaled(gray: Any, config: TrainConfig) -> Any:
    """Gray levels 0..255, float32 (b, px, px, 1), as `config.pixels` wants them, in 1 or already in 3 channels."""
    if config.pixels == "unit":
        return layers.Rescaling(1 / 255, dtype="float32")(gray)
    if config.pixels == "standardized":  # a constant image becomes zeros, never NaN
        unit = layers.Rescaling(1 / 255, dtype="float32")(gray)
        return layers.LayerNormalization(axis=[1, 2, 3], center=False, scale=False, dtype="float32")(unit)
    kind = APPLICATIONS[config.backbone].pixels
    if kind == "tf":
        return layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(gray)
    if kind == "caffe":
        return layers.Normalization(mean=_BGR_MEANS, variance=[1.0] * 3, dtype="float32")(repeated(gray))
    return gray


def repeated(gray: Any) -> Any:
    """One channel three times, as networks for colour pictures expect."""
    return gray if gray.shape[-1] == 3 else layers.Concatenate(dtype="float32")([gray] * 3)


def application(x: Any, config: TrainConfig, folder: Path) -> Any:
    """Adds the backbone of `config`, weights loaded, on top of `x` (b, px, px, 3); its feature map (b, h, w, channels).

    Raises:
        ContractError: the images are too small, or the weights are missing, torn, others or out of reach.
    """
    chosen = APPLICATIONS[config.backbone]
    own = {"include_preprocessing": config.pixels == "backbone"} if chosen.pixels == "own" else {}
    try:
        network = getattr(keras.applications, chosen.name)(
            include_top=False, weights=_weights(config, folder), input_tensor=x, **own
        )
    except ContractError:
        raise
    except Exception as error:  # Keras wraps what urllib, h5py and its own checks raise in many types
        raise ContractError(_why(config, x.shape[1], " ".join(str(error).split())[:300])) from None
    return network.output


def _weights(config: TrainConfig, folder: Path) -> str | None:
    if config.weights in ("none", "imagenet"):
        return None if config.weights == "none" else "imagenet"
    path = folder / config.weights
    _check_digest(path, config)
    return str(path)


def _why(config: TrainConfig, px: int, said: str) -> str:
    if config.weights == "imagenet":
        way_out = "allow the machine internet, or set train.weights to the path of the file, or to none"
        return f"ImageNet weights of {config.backbone} are out of reach: {said}; {way_out}"
    if config.weights != "none":
        return f"weights {config.weights} do not fit backbone {config.backbone}: {said}"
    return f"backbone {config.backbone} cannot take images of {px} px: {said}"


def _check_digest(path: Path, config: TrainConfig) -> None:
    """Keras checks what it downloads; this is the same check for a file that somebody brought."""
    wanted = config.weights_md5 or APPLICATIONS[config.backbone].digest
    kind = "md5" if len(wanted) == 32 else "sha256"
    try:
        with open(path, "rb") as stream:
            found = hashlib.file_digest(stream, kind).hexdigest()
    except OSError as error:
        raise ContractError(f"weights {path}: {error.strerror}; train.weights=none needs no file") from None
    if found != wanted:
        hint = "a torn download, or other weights; for weights of your own set train.weights_md5"
        raise ContractError(f"weights {path} have {kind} {found}, not {wanted}: {hint}")

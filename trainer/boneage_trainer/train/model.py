"""The network: preprocessing, backbone, head and the way back to months, in one Keras model of built-in layers.

The backbone is a small residual network, or one of Keras' applications with its published weights, verified.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from boneage_trainer.config import TrainConfig
from boneage_trainer.contract import ContractError, hash_file

FEATURE_MAP = "feature_map"
"""The name of the layer whose output is the backbone's feature map; Grad-CAM finds it by this."""
_STAGE_WIDTHS = (1, 2, 4, 8)
_BGR_MEANS = [103.939, 116.779, 123.68]  # of ImageNet, as Keras' "caffe" mode subtracts them


@dataclass(frozen=True, slots=True)
class Application:
    """A network of keras.applications without its top.

    `pixels`: ``caffe`` (BGR, means subtracted), ``tf`` (-1..1) or ``own`` (0..255; it scales them itself).
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


@dataclass(frozen=True, slots=True)
class Networks:
    """Four views of the same layers.

    `body` maps images to features, `head` features (and sex) to targets, `core` images (and sex) to
    targets, `full` to months. A target is a z-score, or months where targets are not standardized.
    """

    body: Any
    head: Any
    core: Any
    full: Any
    mean_months: float
    sd_months: float

    def to_target(self, months: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return ((months - self.mean_months) / self.sd_months).astype(np.float32)

    def to_months(self, target: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return (target * self.sd_months + self.mean_months).astype(np.float32)

    def freeze(self, frozen: bool) -> None:
        """Sets whether the backbone learns; a frozen one also keeps its batch statistics."""
        for layer in self.body.layers:
            layer.trainable = not frozen


def build_networks(
    config: TrainConfig, image_size_px: int | None, ages_months: npt.NDArray[np.float32], folder: Path, precision: str
) -> Networks:
    """Networks for uint8 gray images (px, px, 1) and, if configured, sex (1,), male 1 and female 0.

    `image_size_px` None leaves the size open, for a run that begins with small images;
    `ages_months` are those of the training set; the path of a weights file is relative to `folder`;
    `precision` is a Keras dtype policy.

    Raises:
        ContractError: the backbone cannot take such images, or its weights are missing or wrong.
    """
    keras.config.set_dtype_policy(precision)
    mean, sd = (float(ages_months.mean()), float(ages_months.std()) or 1.0) if config.standardize_target else (0.0, 1.0)
    image = keras.Input((image_size_px, image_size_px, 1), dtype="uint8", name="image")
    body = keras.Model(image, _features(image, config, folder))
    apply_head = _head(config)
    features = keras.Input(body.output.shape[1:], dtype=body.output.dtype, name="features")
    male = [keras.Input((1,), dtype="float32", name="male")] if config.use_sex else []
    target = apply_head(body.output, *male)
    months = layers.Rescaling(sd, mean, dtype="float32", name="months")(target)
    return Networks(
        body=body,
        head=keras.Model([features, *male], apply_head(features, *male)),
        core=keras.Model([image, *male], target),
        full=keras.Model([image, *male], months),
        mean_months=mean,
        sd_months=sd,
    )


# ------------------------------------------------------------------------------------------ body
def _features(image: Any, config: TrainConfig, folder: Path) -> Any:
    """(b, channels) for the pooled head, the whole map (b, h, w, channels) for the paper's."""
    x = scale_pixels(layers.Rescaling(1.0, dtype="float32")(image), config)
    if config.backbone == "residual":
        x = _normalized(layers.Conv2D(config.width, 3, strides=2, padding="same", use_bias=False)(x))
        for stage, factor in enumerate(_STAGE_WIDTHS):
            x = _residual_block(x, config.width * factor, stride=2 if stage else 1)
    else:
        x = apply_backbone(repeat_channels(x), config, folder)
    x = layers.Identity(name=FEATURE_MAP)(x)
    return x if config.head == "flat" else layers.GlobalAveragePooling2D()(x)


def _residual_block(x: Any, filters: int, stride: int) -> Any:
    y = _normalized(layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x))
    y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
    y = layers.BatchNormalization(momentum=0.95)(y)
    # Squeeze and excite: each channel is scaled by what the whole image contains (Hu et al., 2018).
    gate = layers.Dense(max(8, filters // 4), activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    y = layers.Multiply()([y, layers.Dense(filters, activation="sigmoid")(gate)])
    if stride > 1 or x.shape[-1] != filters:
        x = layers.AveragePooling2D(stride, padding="same")(x) if stride > 1 else x
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
    return layers.ReLU()(layers.Add()([x, y]))


def _normalized(x: Any) -> Any:
    return layers.ReLU()(layers.BatchNormalization(momentum=0.95)(x))


# ------------------------------------------------------------------------------------------ head
def _head(config: TrainConfig) -> Callable[..., Any]:
    """Layers that are created once and applied to features of either network."""
    dense_sex = layers.Dense(16, activation="relu")
    join, drop = layers.Concatenate(), layers.Dropout(config.dropout, seed=config.seed)
    dense_target = layers.Dense(1, dtype="float32", name="target")
    flat, hidden = config.head == "flat", layers.Dense(128 if config.head == "flat" else 8 * config.width, "relu")
    flatten, norm = layers.Flatten(), layers.BatchNormalization()

    def apply(features: Any, *male: Any) -> Any:
        x = drop(flatten(features)) if flat else features
        for sex in male:
            x = join([x, dense_sex(layers.Rescaling(2.0, -1.0)(sex))])
        x = norm(hidden(x)) if flat else drop(hidden(x))
        return dense_target(x)

    return apply


# ------------------------------------------------------------------------- Keras' own backbones
def scale_pixels(gray: Any, config: TrainConfig) -> Any:
    """Gray levels 0..255, float32 (b, px, px, 1), scaled as `config.pixels` says, in 1 or already in 3 channels."""
    if config.pixels == "unit":
        return layers.Rescaling(1 / 255, dtype="float32")(gray)
    if config.pixels == "standardized":  # a constant image becomes zeros, never NaN
        unit = layers.Rescaling(1 / 255, dtype="float32")(gray)
        return layers.LayerNormalization(axis=[1, 2, 3], center=False, scale=False, dtype="float32")(unit)
    kind = APPLICATIONS[config.backbone].pixels
    if kind == "tf":
        return layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(gray)
    if kind == "caffe":
        return layers.Normalization(mean=_BGR_MEANS, variance=[1.0] * 3, dtype="float32")(repeat_channels(gray))
    return gray


def repeat_channels(gray: Any) -> Any:
    """One channel three times, as networks for colour pictures expect."""
    return gray if gray.shape[-1] == 3 else layers.Concatenate(dtype="float32")([gray] * 3)


def apply_backbone(x: Any, config: TrainConfig, folder: Path) -> Any:
    """Applies the backbone of `config`, weights loaded, to `x` (b, px, px, 3); its feature map (b, h, w, channels).

    Raises:
        ContractError: the images are too small, or the weights are missing, torn, others or cannot be downloaded.
    """
    application = APPLICATIONS[config.backbone]
    weights: str | None = None if config.weights == "none" else config.weights
    if weights and weights != "imagenet":
        _check_digest(folder / weights, config)
        weights = str(folder / weights)
    options = {"include_preprocessing": config.pixels == "backbone"} if application.pixels == "own" else {}
    try:
        network = getattr(keras.applications, application.name)(
            include_top=False, weights=weights, input_tensor=x, **options
        )
    except Exception as error:  # Keras wraps what urllib, h5py and its own checks raise in many types
        reason = " ".join(str(error).split())[:300]
        if config.weights == "imagenet":
            way_out = "allow the machine internet, or set train.weights to the path of the file, or to none"
            message = f"ImageNet weights of {config.backbone} cannot be downloaded: {reason}; {way_out}"
        elif config.weights != "none":
            message = f"weights {config.weights} do not fit backbone {config.backbone}: {reason}"
        else:
            message = f"backbone {config.backbone} cannot take images of {x.shape[1]} px: {reason}"
        raise ContractError(message) from None
    return network.output


def _check_digest(path: Path, config: TrainConfig) -> None:
    """Keras verifies what it downloads; this is the same check for a file that the user provides."""
    expected = config.weights_md5 or APPLICATIONS[config.backbone].digest
    kind = "md5" if len(expected) == 32 else "sha256"
    try:
        actual = hash_file(path, kind)
    except OSError as error:
        raise ContractError(f"weights {path}: {error.strerror}; train.weights=none needs no file") from None
    if actual != expected:
        hint = "a torn download, or other weights; for weights of your own set train.weights_md5"
        raise ContractError(f"weights {path} have {kind} {actual}, not {expected}: {hint}")

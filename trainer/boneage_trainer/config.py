"""TrainConfig: every setting of a training, the same on every machine. Standard library only."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boneage_trainer.errors import ContractError, unknown_name
from boneage_trainer.presets import PRESETS


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything the trainer needs to know, whatever machine it runs on.

    Network: `backbone` (``residual`` is trained from scratch, the others are Keras applications);
    `weights` is ``none``, ``imagenet`` or the path of a weights file relative to the pack, whose md5
    must be Keras' own for that backbone, or `weights_md5`; `head` is ``pooled`` or the paper's ``flat``;
    `pixels` says how gray levels enter: ``standardized`` per image, ``unit`` (0..1), or as the
    ``backbone`` was trained; `width` is the residual network's, which sees images scaled to
    `small_px` in the first `small_share` of its epochs: most is learned there, in a third of the time.
    Phases: without `train_backbone` only the head is trained; with it, the first `head_epochs` train
    only the head. While only the head is trained, features are computed once (`cache_features`), with
    augmentation for `cached_views` views an image, which take turns; 0 views: fresh ones, not cached.
    Data: `split` is ``paper`` (the student paper's: 64/16/20 %), ``holdout:FRACTION:SEED``, or the
    path of a csv with the columns ``id,split`` (train, validation or test) relative to the pack.
    `test_views` above 1 averages the predictions of so many views of each test image.
    `average_epochs` is the time constant of the averaged weights, which are validated and kept; 0: off.
    `early_stopping_patience` counts epochs without a better validation MAE; 0 switches it off.
    Device: `precision` and `jit` are measured on the device when ``auto``; `deterministic` gives the
    same bits again on the same machine, so nothing is measured then.
    """

    preset: str = "tiny"
    epochs: int = 80
    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup_epochs: int = 1
    schedule: str = "cosine"
    loss: str = "huber"
    standardize_target: bool = True
    average_epochs: float = 0.5
    backbone: str = "residual"
    weights: str = "none"
    weights_md5: str = ""
    head: str = "pooled"
    pixels: str = "standardized"
    width: int = 16
    small_px: int = 64
    small_share: float = 0.5
    dropout: float = 0.3
    use_sex: bool = True
    train_backbone: bool = True
    head_epochs: int = 0
    head_learning_rate: float = 1e-3
    cache_features: bool = True
    cached_views: int = 0
    augment: str = "light"
    test_views: int = 10
    split: str = "paper"
    seed: int = 2018
    early_stopping_patience: int = 0
    precision: str = "auto"
    jit: str = "off"
    deterministic: bool = False

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> TrainConfig:
        """Builds a config from `given` over its preset's defaults.

        Raises:
            ContractError: an unknown key, preset or choice, or a value of the wrong type or range.
        """
        hints = typing.get_type_hints(cls)
        for key in given:
            if key not in hints:
                raise ContractError(unknown_name("training setting", key, hints))
        preset = given.get("preset", "tiny")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ContractError(unknown_name("preset", preset, PRESETS))
        merged = {**PRESETS[preset].settings, **given}
        config = cls(**{key: _typed(key, value, hints[key]) for key, value in merged.items()})
        config._check()
        return config

    @property
    def backbone_epochs(self) -> tuple[int, int]:
        """How many epochs train the head alone, and how many then the whole network."""
        alone = min(self.head_epochs, self.epochs) if self.train_backbone else self.epochs
        return alone, self.epochs - alone

    @property
    def small_epochs(self) -> int:
        """How many epochs see images scaled to `small_px`."""
        return int(self.small_share * self.epochs) if self.backbone == "residual" else 0

    def for_size(self, image_size_px: int) -> TrainConfig:
        """The same training on images of that size; those that are small already are not made smaller."""
        return self if image_size_px > self.small_px else dataclasses.replace(self, small_share=0.0)

    def shortened(self, epochs: int, **changes: Any) -> TrainConfig:
        """The same network and phases in `epochs` epochs, from random weights, to try it; then `changes`.

        Raises:
            ContractError: the changes do not fit.
        """
        short = {
            "epochs": epochs, "batch_size": min(8, self.batch_size),
            "head_epochs": min(2, self.head_epochs, epochs - 1), "warmup_epochs": min(1, self.warmup_epochs),
            "weights": "none", "weights_md5": "", "early_stopping_patience": 0, "test_views": min(2, self.test_views),
        }  # fmt: skip
        return TrainConfig.from_mapping({**dataclasses.asdict(self), **short, **changes})

    def without_weights(self) -> TrainConfig:
        """The same network, to be filled from elsewhere."""
        return dataclasses.replace(self, weights="none", weights_md5="")

    def _check(self) -> None:
        for key, known in _CHOICES.items():
            if (value := getattr(self, key)) not in known:
                raise ContractError(unknown_name(key, value, known))
        for key, low, high in _RANGES:
            value = getattr(self, key)
            if not low <= value <= high:
                raise ContractError(f"{key} must lie in {low}..{high}, not {value}")
        if self.backbone == "residual" and self.weights == "imagenet":
            raise ContractError("backbone residual has no ImageNet weights; set weights=none, or another backbone")
        if self.backbone == "residual" and self.pixels == "backbone":
            raise ContractError("backbone residual has no pixels of its own; set pixels=standardized")
        if self.weights_md5 and self.weights in ("none", "imagenet"):
            raise ContractError(f"weights_md5 goes with a path in weights, not with {self.weights!r}")


BACKBONES = ("residual", "vgg16", "xception", "efficientnetv2b0", "efficientnetv2b3", "convnexttiny")
_CHOICES = {
    "augment": ("none", "light"), "backbone": BACKBONES, "head": ("pooled", "flat"), "loss": ("huber", "mae", "mse"),
    "pixels": ("standardized", "unit", "backbone"), "schedule": ("cosine", "constant"), "jit": ("auto", "on", "off"),
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
}  # fmt: skip
_RANGES = (
    ("epochs", 1, 10_000), ("batch_size", 1, 4096), ("learning_rate", 1e-8, 10), ("head_learning_rate", 1e-8, 10),
    ("weight_decay", 0, 1), ("warmup_epochs", 0, 1000), ("head_epochs", 0, 10_000), ("average_epochs", 0, 100),
    ("cached_views", 0, 64), ("test_views", 1, 10), ("width", 4, 512),
    ("small_px", 16, 2048), ("small_share", 0, 0.9),    ("dropout", 0, 0.95), ("seed", 0, 2**32 - 1),
    ("early_stopping_patience", 0, 10_000),
)  # fmt: skip


def _typed(key: str, value: Any, kind: type) -> Any:
    """`value` as `kind`, where nothing is lost by it; true is no number and 2.5 is no epoch count."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise ContractError(f"{key} must be {kind.__name__}, not {value!r}")
    return value

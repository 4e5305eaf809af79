"""TrainConfig: every setting of a run, the same on every machine. Standard library only."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from boneage_trainer.errors import ContractError, shorten, unknown_name
from boneage_trainer.presets import PRESETS


def setting(
    default: Any,
    help_line: str,
    *,
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    **marks: Any,
) -> Any:
    """A field of a settings dataclass: its default, its help line and what it accepts besides its type.

    `low` and `high` are inclusive. The command line derives its keys, checks, help and editor schema from these.
    """
    metadata = {"help": help_line, "choices": choices, "low": low, "high": high, **marks}
    return dataclasses.field(default=default, metadata=metadata)


BACKBONES = ("residual", "vgg16", "xception", "efficientnetv2b0", "efficientnetv2b3", "convnexttiny")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Everything the trainer needs to know, whatever machine it runs on.

    Two phases: without `train_backbone` only the head is trained; with it, the first `head_epochs` train only the
    head. While only the head is trained, backbone features are computed once (`cache_features`) for `cached_views`
    augmented views of each image, used in turn. The residual network learns most of what it learns from small
    images, in a third of the time, hence `small_px` and `small_share`. `precision` and `jit` are chosen by a
    benchmark on the device when ``auto``; `deterministic` switches that off.
    """

    preset: str = setting("tiny", "Preset whose values are the defaults of the settings below", choices=tuple(PRESETS))
    epochs: int = setting(80, "Passes over the training images", low=1, high=10_000)
    batch_size: int = setting(32, "Images per optimizer step", low=1, high=4096)
    learning_rate: float = setting(2e-3, "Peak learning rate", low=1e-8, high=10)
    weight_decay: float = setting(1e-2, "Decoupled weight decay", low=0, high=1)
    warmup_epochs: int = setting(1, "Epochs of linear learning-rate warm-up", low=0, high=1000)
    schedule: str = setting("cosine", "Learning-rate schedule after the warm-up", choices=("cosine", "constant"))
    loss: str = setting("huber", "Loss function", choices=("huber", "mae", "mse"))
    standardize_target: bool = setting(True, "Whether ages are standardized with the training set's mean and SD")
    average_epochs: float = setting(
        0.5, "Time constant, in epochs, of the averaged weights that are validated and saved; 0: off", low=0, high=100
    )
    backbone: str = setting("residual", "Network; residual is trained from scratch", choices=BACKBONES)
    weights: str = setting("none", "Initial weights: none, imagenet, or a path relative to the pack")
    weights_md5: str = setting("", "MD5 or SHA-256 of a weights file that is not Keras' own")
    head: str = setting("pooled", "Head of the network; flat is the paper's", choices=("pooled", "flat"))
    pixels: str = setting(
        "standardized",
        "Scale of gray levels: standardized per image, unit (0 to 1), or as the backbone was trained",
        choices=("standardized", "unit", "backbone"),
    )
    width: int = setting(16, "Channels of the residual network's first stage", low=4, high=512)
    small_px: int = setting(64, "Image side, in pixels, in the first epochs of the residual network", low=16, high=2048)
    small_share: float = setting(0.5, "Share of the epochs that use small images", low=0, high=0.9)
    dropout: float = setting(0.3, "Dropout rate of the head", low=0, high=0.95)
    use_sex: bool = setting(True, "Whether sex is an input of the network")
    train_backbone: bool = setting(True, "Whether the backbone is trained; otherwise only the head is")
    head_epochs: int = setting(0, "First epochs, in which only the head is trained", low=0, high=10_000)
    head_learning_rate: float = setting(1e-3, "Learning rate while only the head is trained", low=1e-8, high=10)
    cache_features: bool = setting(True, "Whether backbone features are cached while only the head is trained")
    cached_views: int = setting(0, "Augmented views per image to cache; 0: new views, not cached", low=0, high=64)
    augment: str = setting("light", "Augmentation", choices=("none", "light"))
    test_views: int = setting(10, "Views of each test image whose predictions are averaged", low=1, high=10)
    split: str = setting(
        "paper", "Split: paper (64/16/20 %), holdout:FRACTION:SEED, or a csv (id,split) relative to the pack"
    )
    seed: int = setting(2018, "Seed of initial weights, shuffling and augmentation", low=0, high=2**32 - 1)
    early_stopping_patience: int = setting(
        0, "Epochs without a better validation MAE before the run ends; 0: off", low=0, high=10_000
    )
    precision: str = setting(
        "auto", "Compute precision; auto: measured", choices=("auto", "float32", "mixed_bfloat16", "mixed_float16")
    )
    jit: str = setting("off", "XLA compilation; auto: measured", choices=("auto", "on", "off"))
    deterministic: bool = setting(False, "Whether the same machine computes the same bits again")

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
        """How many epochs train the head alone, and how many after that the whole network."""
        alone = min(self.head_epochs, self.epochs) if self.train_backbone else self.epochs
        return alone, self.epochs - alone

    @property
    def small_epochs(self) -> int:
        """How many epochs use images scaled to `small_px`."""
        return int(self.small_share * self.epochs) if self.backbone == "residual" else 0

    def for_size(self, image_size_px: int) -> TrainConfig:
        """The same settings for images of that size; images of at most `small_px` are not scaled."""
        return self if image_size_px > self.small_px else dataclasses.replace(self, small_share=0.0)

    def shortened(self, epochs: int, **changes: Any) -> TrainConfig:
        """A short trial: the same network and phases in `epochs` epochs, from random weights; then `changes`.

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
        """The same network without pretrained weights, for one whose weights are loaded later."""
        return dataclasses.replace(self, weights="none", weights_md5="")

    def _check(self) -> None:
        for item in dataclasses.fields(self):
            value, choices = getattr(self, item.name), item.metadata["choices"]
            if choices and value not in choices:
                raise ContractError(unknown_name(item.name, value, choices))
            low, high = item.metadata["low"], item.metadata["high"]
            if low is not None and not low <= value <= high:
                raise ContractError(f"{item.name} must lie in {low:g}..{high:.10g}, not {shorten(value)}")
        if self.backbone == "residual" and self.weights == "imagenet":
            raise ContractError("backbone residual has no ImageNet weights; set weights=none, or another backbone")
        if self.backbone == "residual" and self.pixels == "backbone":
            raise ContractError("backbone residual has no pixels of its own; set pixels=standardized")
        if self.weights not in ("none", "imagenet") and not _is_below(self.weights):
            raise ContractError(
                f"weights must be none, imagenet, or a path relative to the pack, not {shorten(self.weights)}"
            )
        if self.weights_md5 and self.weights in ("none", "imagenet"):
            raise ContractError(f"weights_md5 goes with a path in weights, not with {self.weights!r}")
        if self.split.startswith("holdout:"):
            parse_holdout(self.split)
        elif self.split != "paper" and not (self.split.endswith(".csv") and _is_below(self.split)):
            raise ContractError(
                "split must be paper, holdout:FRACTION:SEED, or a csv file relative to the pack, "
                f"not {shorten(self.split)}"
            )


def parse_holdout(name: str) -> tuple[float, int]:
    """Test fraction and seed of ``holdout:FRACTION:SEED``.

    Raises:
        ContractError: another form, a fraction outside 0.01 to 0.5, or a seed that is not an unsigned 32-bit number.
    """
    try:
        _, fraction_text, seed_text = name.split(":")
        fraction, seed = float(fraction_text), int(seed_text)
    except ValueError:
        raise ContractError(f"split must be holdout:FRACTION:SEED, e.g. holdout:0.2:1, not {shorten(name)}") from None
    if not 0.01 <= fraction <= 0.5 or not 0 <= seed < 2**32:
        raise ContractError(f"split {shorten(name)}: the fraction must lie in 0.01..0.5 and the seed in 0..4294967295")
    return fraction, seed


def _is_below(path: str) -> bool:
    """Whether `path` stays inside the folder it is relative to; checked here because the pack may be elsewhere."""
    return bool(path) and not PurePath(path).is_absolute() and ".." not in PurePath(path).parts


def _typed(key: str, value: Any, kind: type) -> Any:
    """`value` as `kind`, where no information is lost; true is not a number and 2.5 is not a count of epochs."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ContractError(f"{key} must be a finite number, not {shorten(value)}") from None
    if type(value) is not kind:
        raise ContractError(f"{key} must be {kind.__name__}, not {shorten(value)}")
    return value

"""A phase of a training: which weights learn, from images or from features that were computed once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from boneage_trainer.config import TrainConfig
from boneage_trainer.device import Device
from boneage_trainer.features import FeatureCache
from boneage_trainer.feed import Feed, Rows
from boneage_trainer.model import Networks
from boneage_trainer.predictor import Predictor
from boneage_trainer.steps import Steps, optimizer_for
from boneage_trainer.views import view


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
            optimizer = optimizer_for(config, rate, feed.steps, self.last - self.first + 1)
            self.steps = Steps(self.model, optimizer, config, device, config.average_epochs * feed.steps)
        self.predict = Predictor(self.model, device)

    def batches(self, epoch: int) -> Iterator[tuple[Rows, Any]]:
        """Rows (b,) and images or features (b, ...) of each batch of `epoch`."""
        draw = draw_of(self.config, epoch, self.frozen)
        if not self.cache:
            yield from self.feed.epoch(epoch, draw, size_px_of(self.config, epoch))
            return
        features = self.cache.of("train", self.feed.rows, draw)
        for rows in self.feed.order(epoch):
            yield rows, features[rows]


def draw_of(config: TrainConfig, epoch: int, frozen: bool) -> int:
    """Which augmentation an epoch sees: none (0), its own, or one of the views that are cached, in turn."""
    if config.augment == "none":
        return 0
    return (epoch - 1) % config.cached_views + 1 if frozen and config.cached_views else epoch


def size_px_of(config: TrainConfig, epoch: int) -> int | None:
    """The side of the images an epoch trains and validates on; None: that of the pack."""
    return config.small_px if epoch <= config.small_epochs else None


def is_cacheable(config: TrainConfig) -> bool:
    """Whether some epochs see a frozen backbone's features of images that come again."""
    comes_again = config.augment == "none" or config.cached_views > 0
    return config.cache_features and comes_again and config.backbone_epochs[0] > 0


def viewed(images: Any, number: int) -> Any:
    """View `number` of images (b, px, px, 1)."""
    return images if number == 0 else view(images[..., 0], number)[..., None]

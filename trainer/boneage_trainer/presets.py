"""The presets: named settings of a run, what each needs and what it has reached.

A preset only changes defaults; any field can be set on top of it. Results say where they were measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """`settings` are fields of TrainConfig; `size_px` the smallest and largest image size it is meant for."""

    description: str
    needs: str
    reached: str
    size_px: tuple[int, int]
    settings: dict[str, Any] = field(default_factory=dict)


_FINE_TUNING: dict[str, Any] = {
    "weights": "imagenet", "pixels": "backbone", "head_epochs": 2, "head_learning_rate": 1e-3, "dropout": 0.3,
    "cached_views": 2, "weight_decay": 2e-2, "test_views": 2, "jit": "auto",
}  # fmt: skip

PRESETS: dict[str, Preset] = {
    "tiny": Preset(
        description="residual network from scratch, sex as input; for CPUs and small images",
        needs="a pack of 64-128 px",
        reached="test MAE 9.4-9.5 months (3 seeds) on the real 100 px radiographs, paper's split, 32 CPU-minutes",
        size_px=(64, 128),
    ),
    "smoke": Preset(
        description="the network of tiny, as small and short as possible: tests the pipeline, learns little",
        needs="nothing",
        reached="not meant to be accurate",
        size_px=(16, 128),
        settings={"epochs": 2, "width": 4, "augment": "none", "warmup_epochs": 0, "test_views": 1},
    ),
    "paper": Preset(
        description=(
            "the student paper's frozen VGG16 and its head, without its bugs: one preprocessing for training and test, "
            "predictions in file order, the epoch with the lowest validation error, MAE measured, images averaged "
            "down (not sampled) and not distorted"
        ),
        needs="a pack of 224 px and ImageNet weights of VGG16 (58.9 MB); minutes on two cores (cached features)",
        reached="the paper: validation RMSE 22.5 months; this preset: not measured with ImageNet weights yet",
        size_px=(224, 224),
        settings={
            "backbone": "vgg16", "weights": "imagenet", "head": "flat", "train_backbone": False, "pixels": "unit",
            "use_sex": False, "standardize_target": False, "loss": "mse", "learning_rate": 1e-3, "weight_decay": 0.0,
            "schedule": "constant", "warmup_epochs": 0, "average_epochs": 0.0, "epochs": 15, "batch_size": 32,
            "dropout": 0.5, "augment": "none", "early_stopping_patience": 5, "test_views": 1,
        },
    ),
    "fast": Preset(
        description="EfficientNetV2B0, all of it fine-tuned, sex as input",
        needs="a pack of 256-320 px, ImageNet weights (or --weights none and more epochs), a GPU",
        reached="not measured on a GPU yet",
        size_px=(256, 320),
        settings={
            **_FINE_TUNING, "backbone": "efficientnetv2b0", "epochs": 20, "learning_rate": 5e-4, "warmup_epochs": 1,
        },
    ),
    "best": Preset(
        description="ConvNeXtTiny, all of it fine-tuned, sex as input, mirrored view averaged",
        needs="a pack of 384-512 px, ImageNet weights, a GPU with 16 GB",
        reached="not measured on a GPU yet",
        size_px=(384, 512),
        settings={
            **_FINE_TUNING, "backbone": "convnexttiny", "epochs": 30, "learning_rate": 1e-4, "warmup_epochs": 2,
            "weight_decay": 5e-2,
        },
    ),
}  # fmt: skip

"""How a leg computes: as the one it goes on from did, else as a short measurement says."""

from __future__ import annotations

from typing import Any

import numpy as np

from boneage_trainer import checkpoint, environment, model, tuning
from boneage_trainer.config import TrainConfig
from boneage_trainer.contract import RunFolder
from boneage_trainer.device import Device
from boneage_trainer.pack import Pack
from boneage_trainer.phases import is_cacheable
from boneage_trainer.predictor import Predictor
from boneage_trainer.splits import Split
from boneage_trainer.steps import Steps, optimizer_for

_CPU_BATCH = 8


def settled(
    device: Device, config: TrainConfig, pack: Pack, parts: Split, source: RunFolder
) -> tuple[Device, list[dict[str, Any]]]:
    """`device` with precision, XLA and parts of a batch, and what was measured to choose them."""
    if source.last.exists():
        return device.with_(**checkpoint.notes_of(source.last)["device"]), []
    config = config.without_weights()
    big = device.strategy or environment.gpus_seen()[0]
    images = np.zeros((config.batch_size if big else min(_CPU_BATCH, config.batch_size),
                       *pack.images.shape[1:], 1), np.uint8)  # fmt: skip
    ages = pack.months[parts.train]
    only_once = is_cacheable(config) and not config.train_backbone

    def measure(candidate: Device) -> Any:
        with candidate.scope():
            networks = model.build(config, images.shape[1], ages, pack.folder, candidate.precision)
            if only_once:
                predict = Predictor(networks.body, candidate)
                return lambda: predict([images])
            steps = Steps(networks.core, optimizer_for(config, 1e-4, 1, 1), config, candidate, 1)
        zeros = np.zeros((len(images), 1), np.float32)
        return lambda: float(steps([images, zeros] if config.use_sex else [images], zeros)[0])

    times = max(1, config.cached_views) if only_once else config.epochs
    chosen, measured = tuning.tuned(device, config, len(parts.train) * times, measure, len(images))
    for one in measured:
        how = f"{one['precision']}{' with XLA' if one['jit'] else ''}"
        print(f"measured {how}: {one.get('failed') or str(one['ms_per_image']) + ' ms an image'}", flush=True)
    return chosen, measured

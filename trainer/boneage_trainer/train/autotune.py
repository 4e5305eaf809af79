"""Picks precision and XLA for this device by a short measurement, since no table knows every GPU and network."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from boneage_trainer.config import TrainConfig
from boneage_trainer.contract import RunFolder
from boneage_trainer.data.pack import Pack
from boneage_trainer.data.splits import Split
from boneage_trainer.inference.model import Predictor
from boneage_trainer.train import checkpoint, environment, model
from boneage_trainer.train.device import Device, is_out_of_memory
from boneage_trainer.train.step import TrainStep, build_optimizer, is_cacheable

_NOT_WORTH_S = 60.0
_FEW = {True: 50_000, False: 100}
"""Images that take less than a measurement in any case: of the residual network (True), of the others."""
_STEPS_S = 1.0
_MARGIN = 0.9
"""Anything but plain float32 must need at most this share of its time."""

MakeStep = Callable[[Device], Callable[[], object]]
"""Makes one step's work for a device; the call does one step and waits for its end."""


def choose_fastest(
    device: Device, config: TrainConfig, images: int, measure: MakeStep, batch: int
) -> tuple[Device, list[dict[str, Any]]]:
    """`device` with the fastest of what `config` leaves open, and what was measured, fastest or not.

    `images` is how many the training will put through the network: short ones are not worth measuring.
    A deterministic training takes float32 without XLA where nothing else is asked for.
    """
    open_ = list(_candidates(device, config))
    if len(open_) == 1 or config.deterministic or images < _FEW[config.backbone == "residual"]:
        return open_[0], []
    measured = [_measured(open_[0], measure, batch)]
    if (measured[0]["ms_per_image"] or 0) * images / 1000 > _NOT_WORTH_S:
        measured += [_measured(one, measure, batch) for one in open_[1:]]
    return open_[_best([one["ms_per_image"] for one in measured])], measured


def _best(times_ms: list[float | None]) -> int:
    """The place of the fastest; the first, the plainest, where no other is clearly faster."""
    handicapped = {at: time_ms / (_MARGIN if at else 1) for at, time_ms in enumerate(times_ms) if time_ms}
    return min(handicapped, key=handicapped.__getitem__, default=0)


def _candidates(device: Device, config: TrainConfig) -> Iterator[Device]:
    """The plainest first."""
    precisions = _precisions() if config.precision == "auto" else [config.precision]
    jits = [False, True] if config.jit == "auto" and tf.config.list_logical_devices("GPU") else [config.jit == "on"]
    for precision in precisions:
        for jit in jits:
            yield device.with_(precision=precision, jit=jit)


def _precisions() -> list[str]:
    """What the device computes natively: float16 from Volta on, bfloat16 from Ampere on and on some CPUs."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return ["float32", *(["mixed_bfloat16"] if _cpu_has_bfloat16() else [])]
    capability = min(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus)
    if capability >= (8, 0):
        return ["float32", "mixed_bfloat16"]
    return ["float32", *(["mixed_float16"] if capability >= (7, 0) else [])]


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _measured(device: Device, measure: MakeStep, batch: int) -> dict[str, Any]:
    found: dict[str, Any] = {"precision": device.precision, "jit": device.jit, "ms_per_image": None}
    try:
        step = measure(device)
        step()  # traces, compiles, fills caches
        found["ms_per_image"] = round(1000 * _seconds(step) / batch, 3)
    except Exception as error:  # XLA and drivers fail in many ways, and a candidate that fails is only not taken
        found["failed"] = "out of memory" if is_out_of_memory(error) else " ".join(str(error).split())[:200]
    return found


def _seconds(step: Callable[[], object]) -> float:
    """The median of as many steps as fit in a second, one at least."""
    times: list[float] = []
    while sum(times) < _STEPS_S:
        began_s = time.perf_counter()
        step()
        times.append(time.perf_counter() - began_s)
    return float(np.median(times))


# == settling: How a leg computes: as the one it goes on from did, else as a short measurement says.

_CPU_BATCH = 8


def autotune(
    device: Device, config: TrainConfig, pack: Pack, parts: Split, source: RunFolder
) -> tuple[Device, list[dict[str, Any]]]:
    """`device` with precision, XLA and parts of a batch, and what was measured to choose them."""
    if source.last.exists():
        return device.with_(**checkpoint.read_notes(source.last)["device"]), []
    config = config.without_weights()
    big = device.strategy or environment.list_gpus()[0]
    images = np.zeros((config.batch_size if big else min(_CPU_BATCH, config.batch_size),
                       *pack.images.shape[1:], 1), np.uint8)  # fmt: skip
    ages = pack.months[parts.train]
    only_once = is_cacheable(config) and not config.train_backbone

    def measure(candidate: Device) -> Any:
        with candidate.scope():
            networks = model.build_networks(config, images.shape[1], ages, pack.folder, candidate.precision)
            if only_once:
                predict = Predictor(networks.body, candidate)
                return lambda: predict([images])
            steps = TrainStep(networks.core, build_optimizer(config, 1e-4, 1, 1), config, candidate, 1)
        zeros = np.zeros((len(images), 1), np.float32)
        return lambda: float(steps([images, zeros] if config.use_sex else [images], zeros)[0])

    times = max(1, config.cached_views) if only_once else config.epochs
    chosen, measured = choose_fastest(device, config, len(parts.train) * times, measure, len(images))
    for one in measured:
        how = f"{one['precision']}{' with XLA' if one['jit'] else ''}"
        print(f"measured {how}: {one.get('failed') or str(one['ms_per_image']) + ' ms an image'}", flush=True)
    return chosen, measured

"""Chooses precision and XLA for this device by a short benchmark, since no table knows every GPU and network.

A leg that resumes computes as the leg before it did; the benchmark is for the first one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from boneage_trainer.config import TrainConfig
from boneage_trainer.contract import RunFolder
from boneage_trainer.data.pack import Pack
from boneage_trainer.data.splits import Split
from boneage_trainer.inference.model import BatchPredictor
from boneage_trainer.train import checkpoint, environment
from boneage_trainer.train.device import Device, is_out_of_memory
from boneage_trainer.train.model import build_networks
from boneage_trainer.train.step import TrainStep, build_optimizer, is_cacheable

_NOT_WORTH_S = 60.0
"""A run that computes for less than this is not benchmarked further than float32."""
_FEW_IMAGES = {True: 50_000, False: 100}
"""Images that take less time than a benchmark in any case: of the residual network (True), of the others."""
_STEPS_S = 1.0
_MARGIN = 0.9
"""Anything but plain float32 must take at most this share of its time."""
_CPU_BATCH = 8

MakeStep = Callable[[Device], Callable[[], object]]
"""Makes a step for a device; calling it does one step and waits for its end."""


def autotune(
    device: Device, config: TrainConfig, pack: Pack, parts: Split, source: RunFolder
) -> tuple[Device, list[dict[str, Any]]]:
    """`device` with precision, XLA and parts of a batch, and the benchmark that chose them.

    The settings are those in the checkpoint of `source`, if it has one; then nothing is benchmarked.
    """
    if source.last.exists():
        return replace(device, **checkpoint.read_notes(source.last)["device"]), []
    config = config.without_weights()
    batch = config.batch_size if device.strategy or environment.list_gpus()[0] else min(_CPU_BATCH, config.batch_size)
    images = np.zeros((batch, *pack.images.shape[1:], 1), np.uint8)
    months = pack.months[parts.train]
    computes_features_only = is_cacheable(config) and not config.train_backbone

    def make_step(candidate: Device) -> Any:
        with candidate.scope():
            networks = build_networks(config, images.shape[1], months, pack.folder, candidate.precision)
            if computes_features_only:
                predict = BatchPredictor(networks.body, candidate)
                return lambda: predict([images])
            step = TrainStep(networks.core, build_optimizer(config, 1e-4, 1, 1), config, candidate, 1)
        zeros = np.zeros((batch, 1), np.float32)
        return lambda: float(step([images, zeros] if config.use_sex else [images], zeros)[0])

    passes = max(1, config.cached_views) if computes_features_only else config.epochs
    chosen, measured = choose_fastest(device, config, len(parts.train) * passes, make_step, batch)
    for entry in measured:
        result = entry.get("failed") or f"{entry['ms_per_image']} ms/image"
        print(f"autotune: {entry['precision']}{' with XLA' if entry['jit'] else ''}: {result}", flush=True)
    return chosen, measured


def choose_fastest(
    device: Device, config: TrainConfig, images: int, make_step: MakeStep, batch: int
) -> tuple[Device, list[dict[str, Any]]]:
    """`device` with the fastest of the settings that `config` leaves open, and every measurement.

    `images` is how many the run will put through the network: a short run is not worth a benchmark.
    A deterministic run uses float32 without XLA where the config names nothing else.
    """
    precisions = _native_precisions() if config.precision == "auto" else [config.precision]
    jits = [False, True] if config.jit == "auto" and tf.config.list_logical_devices("GPU") else [config.jit == "on"]
    candidates = [replace(device, precision=precision, jit=jit) for precision in precisions for jit in jits]
    if len(candidates) == 1 or config.deterministic or images < _FEW_IMAGES[config.backbone == "residual"]:
        return candidates[0], []
    measured = [_benchmark(candidates[0], make_step, batch)]
    if (measured[0]["ms_per_image"] or 0) * images / 1000 > _NOT_WORTH_S:
        measured += [_benchmark(candidate, make_step, batch) for candidate in candidates[1:]]
    # The first candidate is the plainest; another one must be clearly faster.
    handicapped = {
        index: entry["ms_per_image"] / (_MARGIN if index else 1)
        for index, entry in enumerate(measured)
        if entry["ms_per_image"]
    }
    return candidates[min(handicapped, key=handicapped.__getitem__, default=0)], measured


def _native_precisions() -> list[str]:
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


def _benchmark(device: Device, make_step: MakeStep, batch: int) -> dict[str, Any]:
    """precision, jit, and ms_per_image (the median of the steps that fit in a second) or why it failed."""
    entry: dict[str, Any] = {"precision": device.precision, "jit": device.jit, "ms_per_image": None}
    try:
        step = make_step(device)
        step()  # traces, compiles, fills caches
        times_s: list[float] = []
        while sum(times_s) < _STEPS_S:
            began_s = time.perf_counter()
            step()
            times_s.append(time.perf_counter() - began_s)
        entry["ms_per_image"] = round(1000 * float(np.median(times_s)) / batch, 3)
    except Exception as error:  # XLA and drivers fail in many ways; a candidate that fails is not chosen
        entry["failed"] = "out of memory" if is_out_of_memory(error) else " ".join(str(error).split())[:200]
    return entry

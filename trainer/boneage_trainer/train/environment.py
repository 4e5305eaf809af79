"""What a leg ran on: ``environment.json``."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras

from boneage_trainer.contract import SCHEMA, Job, RunFolder, sha256_of, write_json
from boneage_trainer.data.parallel import count_cores
from boneage_trainer.train.device import Device

_PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "pandas", "opencv-python-headless", "opencv-python")


def write_environment(
    folder: RunFolder, job: Job, device: Device, measured: list[Any], times: dict[str, float]
) -> None:
    """Writes ``environment.json``; `measured` led to the device's settings, `times` are this leg's, in seconds."""
    gpus, reason = list_gpus()
    ram_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bundle = Path(sys.path[0])
    write_json(folder.environment, {
        "schema": SCHEMA, "python": platform.python_version(), "platform": platform.platform(),
        "cpu": _cpu_model(), "cores": count_cores(), "ram_gb": round(ram_bytes / 1e9, 1),
        "packages": installed_versions(_PACKAGES),
        "backend": keras.backend.backend(), "gpus": gpus, "no_gpu_reason": reason,
        "device": {"replicas": device.replicas, "machines": device.workers, **device.settings, "measured": measured},
        "data": job.data, "provenance": job.provenance,
        "bundle_sha256": sha256_of(bundle) if bundle.is_file() else None,
        "times": {key: round(value, 3) for key, value in times.items()},
    })  # fmt: skip


def list_gpus() -> tuple[list[dict[str, str]], str]:
    """The GPUs that TensorFlow uses, and why there are none."""
    if keras.backend.backend() != "tensorflow":
        return [], f"the backend is {keras.backend.backend()}"
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    gpus = [{"name": detail.get("device_name", "unknown")} for detail in details]
    return gpus, "" if gpus else "TensorFlow sees no GPU; trained on the CPU"


def make_deterministic() -> None:
    """The same bits on every run on the same machine; on a CPU this costs nothing."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def installed_versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of those of `packages` that are installed."""
    versions = {}
    for package in packages:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())

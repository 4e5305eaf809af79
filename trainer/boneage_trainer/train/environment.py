"""What a leg really ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
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
    write_json(folder.environment, {
        "schema": SCHEMA, "python": platform.python_version(), "platform": platform.platform(),
        "cpu": _cpu_model(), "cores": count_cores(), "ram_gb": round(_ram_bytes() / 1e9, 1),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "backend": keras.backend.backend(), "gpus": gpus, "no_gpu_reason": reason,
        "device": {"replicas": device.replicas, "machines": device.workers, **device.settings, "measured": measured},
        "data": job.data, "provenance": job.provenance, "bundle_sha256": _bundle_sha256(),
        "times": {key: round(value, 3) for key, value in times.items()},
    })  # fmt: skip


def list_gpus() -> tuple[list[dict[str, str]], str]:
    """The GPUs TensorFlow uses, and why there are none."""
    if keras.backend.backend() != "tensorflow":
        return [], f"the backend is {keras.backend.backend()}"
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(device) for device in devices]
    found = [{"name": detail.get("device_name", "unknown")} for detail in details]
    return found, "" if found else "TensorFlow sees no GPU; trained on the CPU"


def make_deterministic() -> None:
    """Same bits again on the same machine; on a CPU this costs nothing."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ram_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _bundle_sha256() -> str | None:
    archive = Path(sys.path[0])
    return sha256_of(archive) if archive.is_file() else None

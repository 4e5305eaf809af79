"""Run as text by the interpreter that trains, which need not have boneagectl; prints one JSON line."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
from typing import Any


def package_versions() -> dict[str, str | None]:
    """By package, its version; None where it cannot be imported."""
    versions: dict[str, str | None] = {}
    for name in ("numpy", "pandas", "cv2", "keras", "tensorflow"):
        try:
            versions[name] = importlib.import_module(name).__version__
        except ImportError:
            versions[name] = None
    return versions


def nvidia_gpus() -> list[tuple[str, str, int]]:
    """Name, driver version and memory in MB of each GPU that nvidia-smi lists."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    query = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    return [(name, version, int(memory)) for name, version, memory in rows]


def tensorflow_gpus() -> tuple[list[dict[str, Any]], str | None, str]:
    """The GPUs that TensorFlow sees, the CUDA version it was built with, and the reason if it sees none."""
    tensorflow = importlib.import_module("tensorflow")
    devices = tensorflow.config.list_physical_devices("GPU")
    details = [tensorflow.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in devices]
    hardware = nvidia_gpus()
    memory = [row[2] for row in hardware] if len(hardware) == len(devices) else [None] * len(devices)
    cuda = tensorflow.sysconfig.get_build_info().get("cuda_version")
    gpus = [{"name": name, "memory_mb": size} for name, size in zip(details, memory, strict=True)]
    return gpus, cuda, no_gpu_reason(bool(hardware), cuda)


def no_gpu_reason(has_hardware: bool, cuda: str | None) -> str:
    if not has_hardware:
        return "no NVIDIA GPU or driver on this machine (nvidia-smi shows none)"
    if not cuda:
        return "this TensorFlow was built without CUDA; install tensorflow[and-cuda] in place of tensorflow-cpu"
    return f"TensorFlow could not load CUDA {cuda}; install tensorflow[and-cuda], or check LD_LIBRARY_PATH"


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    report: dict[str, Any] = {"python": platform.python_version(), "versions": package_versions(), "gpus": []}
    if report["versions"]["tensorflow"]:
        report["gpus"], report["cuda"], report["no_gpu_reason"] = tensorflow_gpus()
    report["driver"] = next((row[1] for row in nvidia_gpus()), None)
    print(json.dumps(report))


if __name__ == "__main__":
    main()

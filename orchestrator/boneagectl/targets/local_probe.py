"""Runs by its text in the interpreter that trains, which need not have boneagectl; prints one JSON line."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
from typing import Any


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in ("numpy", "pandas", "cv2", "keras", "tensorflow"):
        try:
            found[name] = importlib.import_module(name).__version__
        except ImportError:
            found[name] = None
    return found


def driver() -> list[tuple[str, str, int]]:
    """Name, driver version and memory in MB of each GPU that NVIDIA's own tool sees."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    query = [program, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    rows = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
    return [(name, version, int(memory)) for name, version, memory in rows]


def gpus() -> tuple[list[dict[str, Any]], str | None, str]:
    """The GPUs TensorFlow sees, the CUDA it was built with, and the reason where it sees none."""
    tensorflow = importlib.import_module("tensorflow")
    seen = tensorflow.config.list_physical_devices("GPU")
    details = [tensorflow.config.experimental.get_device_details(gpu).get("device_name", gpu.name) for gpu in seen]
    hardware = driver()
    memory = [row[2] for row in hardware] if len(hardware) == len(seen) else [None] * len(seen)
    cuda = tensorflow.sysconfig.get_build_info().get("cuda_version")
    found = [{"name": name, "memory_mb": size} for name, size in zip(details, memory, strict=True)]
    return found, cuda, why_none(bool(hardware), cuda)


def why_none(has_hardware: bool, cuda: str | None) -> str:
    if not has_hardware:
        return "no NVIDIA GPU or driver on this machine (nvidia-smi shows none)"
    if not cuda:
        return "this TensorFlow was built without CUDA; install tensorflow[and-cuda] in place of tensorflow-cpu"
    return f"TensorFlow could not load CUDA {cuda}; install tensorflow[and-cuda], or check LD_LIBRARY_PATH"


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    answer: dict[str, Any] = {"python": platform.python_version(), "versions": versions(), "gpus": []}
    if answer["versions"]["tensorflow"]:
        answer["gpus"], answer["cuda"], answer["no_gpu_reason"] = gpus()
    answer["driver"] = next((row[1] for row in driver()), None)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()

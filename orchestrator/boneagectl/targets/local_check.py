"""Asks the interpreter that trains what it can train with; `local` and doctor show the answer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneagectl.models import Finding

_PROBE_TIMEOUT_S = 180


def training_findings(python: str) -> list[Finding]:
    """What the interpreter `python` can train with: versions, and the GPU TensorFlow sees or why none."""
    try:
        probe = run_probe(python)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [
            Finding("bad", "local", f"{python} cannot be examined: {error}", "boneagectl config: targets.local.python")
        ]
    missing = [name for name in ("numpy", "pandas", "cv2", "keras", "tensorflow") if probe["versions"][name] is None]
    if missing:
        return [Finding("bad", "local", f"{python} lacks {', '.join(missing)}", "pip install 'boneagectl[train]'")]
    versions = ", ".join(f"{name} {version}" for name, version in probe["versions"].items())
    return [Finding("ok", "local", f"Python {probe['python']}, {versions}"), *_gpu_findings(probe)]


def _gpu_findings(probe: dict[str, Any]) -> Iterator[Finding]:
    for gpu in probe["gpus"]:
        memory = f", {gpu['memory_mb']} MB" if gpu["memory_mb"] else ""
        yield Finding("ok", "gpu", f"{gpu['name']}{memory}, driver {probe['driver']}, CUDA {probe['cuda']}")
    if not probe["gpus"]:
        yield Finding("warn", "gpu", f"none: {probe['no_gpu_reason']}", "training works on the CPU; small presets only")


def run_probe(python: str) -> dict[str, Any]:
    """Asks another interpreter about itself; it starts TensorFlow, so it takes some seconds."""
    source = (Path(__file__).parent / "local_probe.py").read_text()
    done = subprocess.run(
        [python, "-c", source],
        capture_output=True,
        text=True,
        timeout=_PROBE_TIMEOUT_S,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer

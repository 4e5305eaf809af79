"""What the interpreter that trains on this machine has: packages, and a GPU or the reason why there is none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneagectl.models import Finding

_PROBE = Path(__file__).parent / "local_probe.py"
_PROBE_TIMEOUT_S = 180


def training_findings(python: str) -> list[Finding]:
    """The versions in the interpreter `python`, and the GPUs that its TensorFlow sees. Takes some seconds."""
    try:
        probe = run_probe(python)
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        return [Finding("bad", "local", f"{python} cannot be examined: {error}", "set targets.local.python")]
    missing = [name for name, version in probe["versions"].items() if version is None]
    if missing:
        return [Finding("bad", "local", f"{python} lacks {', '.join(missing)}", "pip install 'boneagectl[train]'")]
    versions = ", ".join(f"{name} {version}" for name, version in probe["versions"].items())
    return [Finding("ok", "local", f"Python {probe['python']}, {versions}"), *_gpu_findings(probe)]


def _gpu_findings(probe: dict[str, Any]) -> Iterator[Finding]:
    for gpu in probe["gpus"]:
        memory = f", {gpu['memory_mb']} MB" if gpu["memory_mb"] else ""
        yield Finding("ok", "gpu", f"{gpu['name']}{memory}, driver {probe['driver']}, CUDA {probe['cuda']}")
    if not probe["gpus"]:
        yield Finding("warn", "gpu", f"none: {probe['no_gpu_reason']}", "train small presets on the CPU")


def run_probe(python: str) -> dict[str, Any]:
    """Runs local_probe.py, which starts TensorFlow, in the interpreter `python` and returns its report.

    Raises:
        OSError, ValueError, IndexError, subprocess.SubprocessError: no such interpreter, or no report from it.
    """
    done = subprocess.run(
        [python, "-c", _PROBE.read_text()],
        capture_output=True,
        text=True,
        timeout=_PROBE_TIMEOUT_S,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report

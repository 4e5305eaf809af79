"""Packs the trainer and one job into the zip that runs on every target.

``python bundle.zip --data PACK --out FOLDER`` is the whole interface. Entries are stored, sorted and
dated alike, so the same input gives the same bytes on every machine, whatever its zlib.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import boneage_trainer
from boneage_trainer.archive import stored
from boneage_trainer.contract import Job
from boneagectl.errors import UsageError
from boneagectl.models import Bundle, BundleFile, JobSpec

BUNDLE_NAME = "bundle.zip"
MAX_BYTES = 400_000
"""Less than half of what the smallest target takes: a Kaggle script has at most 900 kB, and base64 adds a third."""
STAYS = {
    "boneage_trainer/check.py",
    "boneage_trainer/evaluation/predictions.py",
    "boneage_trainer/export",
    "boneage_trainer/inference/command.py",
    "boneage_trainer/inference/dicom.py",
    "boneage_trainer/inference/intake.py",
    "boneage_trainer/inference/reader.py",
}
"""What only this machine runs."""
_MAIN = b"from boneage_trainer.__main__ import main\n\nmain()\n"


def build(spec: JobSpec) -> Bundle:
    """The bundle for `spec`: the trainer's own modules and ``job.json``, nothing else.

    Raises:
        UsageError: it would be larger than any target is sure to take.
    """
    entries = _entries(spec)
    content = stored(entries)
    if len(content) > MAX_BYTES:
        raise UsageError(f"the bundle has {len(content)} bytes, over the limit of {MAX_BYTES}")
    files = tuple(BundleFile(name, len(data), hashlib.sha256(data).hexdigest()) for name, data in entries)
    return Bundle(content, hashlib.sha256(content).hexdigest(), files)


def _entries(spec: JobSpec) -> list[tuple[str, bytes]]:
    modules = list(_modules(resources.files("boneage_trainer"), "boneage_trainer"))
    job = Job(train=spec.train, data=spec.data, provenance=spec.provenance).to_json().encode()
    return sorted([*modules, ("__main__.py", _MAIN), ("job.json", job)])


def _modules(folder: Traversable, name: str) -> Iterator[tuple[str, bytes]]:
    for item in folder.iterdir():
        path = f"{name}/{item.name}"
        if item.is_dir() and path not in STAYS:
            yield from _modules(item, path)
        elif item.is_file() and item.name.endswith(".py") and path not in STAYS:
            yield path, item.read_bytes()


# == provenance: Where a job comes from: versions and the git state of the folder it was submitted from.

_GIT_TIMEOUT_S = 20


def collect_provenance(folder: Path) -> dict[str, Any]:
    """`git_commit` and `git_dirty_sha256` are None outside a repository and in a clean one."""
    commit = _git(folder, "rev-parse", "HEAD")
    diff = _git(folder, "diff", "HEAD", "--no-ext-diff", "--binary") if commit else None
    return {
        "boneagectl": boneage_trainer.__version__,
        "python": platform.python_version(),
        "git_commit": commit,
        "git_dirty_sha256": hashlib.sha256(diff.encode()).hexdigest() if diff else None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None where it is missing, slow, or has no answer."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=_GIT_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() or None if done.returncode == 0 else None

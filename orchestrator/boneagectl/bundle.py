"""Packs the trainer and one job into the zip that runs on every target.

``python bundle.zip --data PACK --out FOLDER`` is the whole interface. Entries are stored, sorted and
dated alike, so the same input gives the same bytes on every machine, whatever its zlib.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

from boneage_trainer.archive import stored
from boneage_trainer.contract import Job
from boneagectl.errors import UsageError
from boneagectl.records import Bundle, BundleFile, JobSpec

NAME = "bundle.zip"
MAX_BYTES = 400_000
"""Less than half of what the smallest target takes: a Kaggle script has at most 900 kB, and base64 adds a third."""
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
    package = resources.files("boneage_trainer")
    modules = [(f"boneage_trainer/{item.name}", item.read_bytes()) for item in package.iterdir() if _is_module(item)]
    job = Job(train=spec.train, data=spec.data, provenance=spec.provenance).to_json().encode()
    return sorted([*modules, ("__main__.py", _MAIN), ("job.json", job)])


def _is_module(item: Traversable) -> bool:
    return item.is_file() and item.name.endswith(".py")

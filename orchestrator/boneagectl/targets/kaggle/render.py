"""The folder that is sent to Kaggle; ``kaggle kernels push -p`` accepts it unchanged."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object, write_atomic, write_json
from boneagectl import artifacts
from boneagectl.errors import UsageError
from boneagectl.models import Bundle, Checkpoint, JobSpec
from boneagectl.target_settings import KaggleSettings
from boneagectl.targets.kaggle.client import Kernel
from boneagectl.templates import base64_lines, fill, literal

METADATA = "kernel-metadata.json"
SCRIPT = "kernel.py"
CODE = "code"
RESUME = "resume"
BUNDLE = "bundle.bin"
"""Not .zip: Kaggle unpacks archives in a dataset."""
CHECKPOINT = "run.bin"
MAX_SCRIPT_BYTES = 900_000
"""Kaggle accepts "less than 1 megabytes"; 771 kB of base64 were once refused (unslothai/unsloth's notes)."""
GPUS = {"NvidiaTeslaT4": 2}
_RETIRED = {"NvidiaTeslaP100": "NvidiaTeslaT4", "TpuV38": "TpuV5E8"}


def write_kernel_folder(
    spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None, settings: KaggleSettings
) -> None:
    """Writes the folder.

    Raises:
        UsageError: a setting that Kaggle does not allow, or a script over 900 kB.
    """
    _check(spec, settings)
    source = _source_of(resume, leg_id, settings)
    is_embedded = settings.code == "embed"
    script = fill(
        "kaggle/kernel.py.j2",
        leg_id=leg_id,
        parameters=literal(_parameters(spec, leg_id, settings, source)),
        bundle_sha256=bundle.sha256,
        bundle_base64_lines=base64_lines(bundle.content) if is_embedded else [],
        code_dataset="" if is_embedded else code_dataset(leg_id, settings),
    )
    if len(script.encode()) > MAX_SCRIPT_BYTES:
        raise UsageError(
            f"the script has {len(script.encode())} bytes, Kaggle accepts {MAX_SCRIPT_BYTES}",
            "send the code as a private dataset: --set targets.kaggle.code=dataset",
        )
    write_atomic(dest / SCRIPT, script)
    write_json(dest / METADATA, _metadata(spec, leg_id, settings, source))
    if not is_embedded:
        write_atomic(dest / CODE / BUNDLE, bundle.content)
        _write_dataset(dest / CODE, code_dataset(leg_id, settings))
    if resume and source and source.kind == "datasets":
        artifacts.pack_checkpoint(resume.folder, dest / RESUME / CHECKPOINT)
        _write_dataset(dest / RESUME, source.name)


@dataclass(frozen=True, slots=True)
class ResumeSource:
    """The leg to resume: the output of a kernel (`kind` notebooks), or a private dataset (`kind` datasets)."""

    kind: str
    name: str


def code_dataset(leg_id: str, settings: KaggleSettings) -> str:
    """One dataset per leg, since the version of an attached one is not fixed."""
    return f"{settings.username}/{leg_id}-code"


def _source_of(resume: Checkpoint | None, leg_id: str, settings: KaggleSettings) -> ResumeSource | None:
    """A leg that ended in order on Kaggle is attached; any other is uploaded as a dataset."""
    if resume is None:
        return None
    if resume.handle.target != "kaggle" or _was_cut(RunFolder(resume.folder)):
        return ResumeSource("datasets", f"{settings.username}/{leg_id}-from")
    kernel = Kernel.from_handle(resume.handle)
    return ResumeSource("notebooks", f"{kernel.owner}/{kernel.slug}")


def _was_cut(leg: RunFolder) -> bool:
    """Whether its kernel was killed or failed: Kaggle does not promise that its output can be attached."""
    if not leg.state.exists():
        return False
    return parse_object(leg.state.read_text(), leg.state.name).get("state") not in ("complete", "paused")


def _check(spec: JobSpec, settings: KaggleSettings) -> None:
    if not settings.username:
        raise UsageError(
            "the Kaggle username is not set; the generated kernel contains it",
            "--set targets.kaggle.username=YOU, or set it in boneage.toml",
        )
    if better := _RETIRED.get(settings.machine_shape):
        raise UsageError(f"Kaggle retired {settings.machine_shape} and would silently use {better}",
                         f"--set targets.kaggle.machine_shape={better}")  # fmt: skip
    if settings.dataset.count("/") != 1 or not all(settings.dataset.split("/")):
        raise UsageError(f"targets.kaggle.dataset must be OWNER/NAME, not {settings.dataset!r}")
    if spec.train.weights == "imagenet" and not settings.internet:
        raise UsageError(
            "imagenet weights must be downloaded, but the kernel has no internet access",
            "--set targets.kaggle.internet=true (needs a verified phone number), or --weights none",
        )


def _parameters(spec: JobSpec, leg_id: str, settings: KaggleSettings, source: ResumeSource | None) -> dict[str, Any]:
    return {
        "leg": leg_id,
        "owner": settings.username,
        "dataset": settings.dataset,
        "image_size_px": spec.data["image_size_px"],
        "fingerprint": spec.data["fingerprint"],
        "resume": source.name if source else None,
        "resume_kind": source.kind if source else "notebooks",
        "time_limit_s": spec.time_limit_s,
        "gpus": GPUS.get(settings.machine_shape, 1),
    }


def _metadata(spec: JobSpec, leg_id: str, settings: KaggleSettings, source: ResumeSource | None) -> dict[str, Any]:
    """Every field is set: Kaggle's defaults differ between its documentation and its client."""
    datasets = [settings.dataset] + ([] if settings.code == "embed" else [code_dataset(leg_id, settings)])
    datasets += [source.name] if source and source.kind == "datasets" else []
    return {
        "id": f"{settings.username}/{leg_id}",
        "title": leg_id,  # Kaggle derives the slug from it
        "code_file": SCRIPT,
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": True,
        "enable_tpu": False,
        "enable_internet": settings.internet,
        "machine_shape": settings.machine_shape,
        "session_timeout_seconds": spec.time_limit_s,
        "dataset_sources": datasets,
        "kernel_sources": [source.name] if source and source.kind == "notebooks" else [],
        "model_sources": list(settings.models),
        "competition_sources": [],
    }


def _write_dataset(folder: Path, ref: str) -> None:
    name = ref.partition("/")[2]
    write_json(folder / "dataset-metadata.json", {"id": ref, "title": name, "licenses": [{"name": "unknown"}]})


def read_kernel_folder(folder: Path) -> tuple[dict[str, Any], str]:
    """The metadata and the script of a rendered folder."""
    return json.loads((folder / METADATA).read_text()), (folder / SCRIPT).read_text()

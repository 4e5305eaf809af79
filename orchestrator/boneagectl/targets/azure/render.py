"""What is sent to Azure ML: a folder that ``az ml job create -f job.yml`` takes as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

from boneage_trainer.contract import write_atomic
from boneagectl import artifacts
from boneagectl.errors import UsageError
from boneagectl.models import Bundle, Checkpoint, JobSpec
from boneagectl.target_settings import AzureSettings
from boneagectl.templates import fill

JOB = "job.yml"
STAGE = "stage"
RESUME = "resume"
BUNDLE = "bundle.zip"
MARGIN_S = 300
"""Between the trainer's own limit and Azure's: starting the container, mounting, uploading the last files."""


def write(
    spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None, settings: AzureSettings
) -> None:
    """Writes the folder.

    Raises:
        UsageError: a setting is missing, or the time limit leaves nothing to train in.
    """
    _check(spec, settings)
    write_atomic(dest / STAGE / BUNDLE, bundle.content)
    if resume:
        artifacts.copy_checkpoint(resume.folder, dest / RESUME)
    text = fill(
        "azure/job.yml.j2",
        leg_id=leg_id,
        command=_command(spec, leg_id, resume is not None),
        settings=settings,
        pack=settings.pack or f"azureml:{asset_of(spec.data['fingerprint'])}:1",
        timeout_s=spec.time_limit_s,
        resume=RESUME if resume else "",
    )
    write_atomic(dest / JOB, text)


def asset_of(fingerprint: str) -> str:
    """A pack's data asset, named by its content."""
    return f"boneage-pack-{fingerprint[:12]}"


def _check(spec: JobSpec, settings: AzureSettings) -> None:
    if missing := [name for name in ("resource_group", "workspace", "cluster") if not getattr(settings, name)]:
        raise UsageError(
            f"targets.azure.{missing[0]} is not set", "write it into boneage.toml; boneagectl infra up makes the rest"
        )
    if spec.time_limit_s < MARGIN_S + 60:
        raise UsageError(
            f"a time limit of {spec.time_limit_s} s leaves nothing to train in", "--time-limit 10m, or more"
        )


def _command(spec: JobSpec, leg_id: str, is_resumed: bool) -> str:
    """The image may lack OpenCV; its numpy is kept, since others in it rest on it."""
    need = "python -c 'import cv2' 2>/dev/null || python -m pip install -q --no-deps 'opencv-python-headless<4.11'"
    words = ["python", BUNDLE, "--leg", leg_id, "--time-limit-s", str(spec.time_limit_s - MARGIN_S)]
    places = "--data ${{inputs.pack}} --out ${{outputs.run}}"
    before = " --resume ${{inputs.resume}}" if is_resumed else ""
    return f"{need} && exec {shlex.join(words)} {places}{before}"

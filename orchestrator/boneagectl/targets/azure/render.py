"""The folder that is sent to Azure ML; ``az ml job create -f job.yml`` accepts it as it is."""

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


def write_job_folder(
    spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None, settings: AzureSettings
) -> None:
    """Writes the job description, the bundle and the checkpoint to `dest`.

    Raises:
        UsageError: a setting is missing, or the time limit leaves no time to train.
    """
    if missing := [name for name in ("resource_group", "workspace", "cluster") if not getattr(settings, name)]:
        raise UsageError(f"targets.azure.{missing[0]} is not set", "set it in boneage.toml, then boneagectl infra up")
    if spec.time_limit_s < MARGIN_S + 60:
        raise UsageError(f"a time limit of {spec.time_limit_s} s leaves no time to train", "--time-limit 10m, or more")
    write_atomic(dest / STAGE / BUNDLE, bundle.content)
    if resume:
        artifacts.copy_checkpoint(resume.folder, dest / RESUME)
    text = fill(
        "azure/job.yml.j2",
        leg_id=leg_id,
        command=_command(spec, leg_id, resume is not None),
        settings=settings,
        pack=pack_reference(spec, settings),
        timeout_s=spec.time_limit_s,
        resume=RESUME if resume else "",
    )
    write_atomic(dest / JOB, text)


def pack_reference(spec: JobSpec, settings: AzureSettings) -> str:
    """The data asset that the job mounts."""
    return settings.pack or f"azureml:{asset_name(spec.data['fingerprint'])}:1"


def asset_name(fingerprint: str) -> str:
    """The data asset of a pack, named by its content."""
    return f"boneage-pack-{fingerprint[:12]}"


def _command(spec: JobSpec, leg_id: str, is_resumed: bool) -> str:
    """The image may lack OpenCV; its numpy stays, because other packages in it depend on that version."""
    install = "python -c 'import cv2' 2>/dev/null || python -m pip install -q --no-deps 'opencv-python-headless<4.11'"
    arguments = ["python", BUNDLE, "--leg", leg_id, "--time-limit-s", str(spec.time_limit_s - MARGIN_S)]
    folders = "--data ${{inputs.pack}} --out ${{outputs.run}}"
    resume = " --resume ${{inputs.resume}}" if is_resumed else ""
    return f"{install} && exec {shlex.join(arguments)} {folders}{resume}"

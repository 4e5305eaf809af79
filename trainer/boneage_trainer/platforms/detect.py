"""The platform that the trainer runs on: its session limit, its GPUs, the machine that writes, and rehearsals."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from boneage_trainer.contract import ContractError, Job, PackFolder

NEED_GPU = "BONEAGE_NEED_GPU"
"""Set to 1 where a GPU is paid for or counts against a quota: training on the CPU is then refused."""
REHEARSAL_EPOCHS = 2
_NOTEBOOK_S = 11.5 * 3600
"""Kaggle and Colab end a session after 12 hours; https://www.kaggle.com/docs/notebooks, the Colab FAQ."""


def platform_limit_s() -> tuple[float | None, str]:
    """Seconds until the platform ends this process, and the name of that limit; None where there is none."""
    if end := os.environ.get("SLURM_JOB_END_TIME", ""):
        return (float(end) - time.time() if end.isdigit() else None), "end of the Slurm job"
    if is_rehearsal():  # here the age of the machine means nothing: a laptop may be up for days
        return None, ""
    for variable, name in (("KAGGLE_KERNEL_RUN_TYPE", "Kaggle"), ("COLAB_RELEASE_TAG", "Colab")):
        if variable in os.environ:
            return _NOTEBOOK_S - _container_age_s(), f"limit of the {name} session"
    return None, ""


def _container_age_s() -> float:
    """How long the container's first process has been running."""
    try:
        started_ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, uptime_s - started_ticks / os.sysconf("SC_CLK_TCK"))


def is_chief() -> bool:
    """Whether this machine writes the files: the first one in TF_CONFIG, or any without TF_CONFIG."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        task, has_chief = config.get("task", {}), bool(config.get("cluster", {}).get("chief"))
    except (ValueError, AttributeError):
        return True
    first = {"chief": 0} if has_chief else {"worker": 0}
    return not task or first.get(task.get("type")) == task.get("index", 0)


class NoGpu(ContractError):
    """The platform did not provide the requested GPU."""


def check_gpus(expected: int, platform: str, advice: str) -> None:
    """Prints this machine's GPUs, and a warning if they are fewer than `expected`; asks before anything takes time.

    Raises:
        NoGpu: there is none; the message ends with `advice`.
    """
    gpus, output = _list_gpus()
    if not gpus:
        raise NoGpu(f"{platform} provided no GPU: {output}. {advice}")
    for line in gpus:
        print(line.partition(" (UUID")[0], flush=True)
    if len(gpus) < expected:
        print(f"warning: {expected} GPUs expected, {len(gpus)} provided; training takes longer", flush=True)


def _list_gpus() -> tuple[list[str], str]:
    """The lines of ``nvidia-smi -L``, one per GPU, and a description of its whole output."""
    program = shutil.which("nvidia-smi")
    if not program:
        return [], "nvidia-smi is not installed"
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi does not answer ({error})"
    output = f"{done.stdout} {done.stderr}".strip()
    return [line for line in done.stdout.splitlines() if line.startswith("GPU ")], f"nvidia-smi says {output!r}"


def is_rehearsal() -> bool:
    """Whether the generated job is executed on the user's machine, cut short and on synthetic images."""
    return os.environ.get("BONEAGE_REHEARSAL") == "1"


def shorten_job(job: Job, pack: PackFolder) -> Job:
    """`job` with at most two epochs on the images of `pack`; prints what was changed.

    Raises:
        ContractError: there is no pack.
    """
    train = job.train.shortened(min(REHEARSAL_EPOCHS, job.train.epochs))
    before, after = dataclasses.asdict(job.train), dataclasses.asdict(train)
    changes = [f"{key} {before[key]} -> {after[key]}" for key in after if after[key] != before[key]]
    print(f"rehearsal: {', '.join(changes) or 'nothing to shorten'}", flush=True)
    return dataclasses.replace(job, train=train, data=pack.job_data())

"""What the place a training runs in says of itself: when it ends the session, and who of several machines writes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from boneage_trainer.contract import Job, PackFolder
from boneage_trainer.errors import ContractError

NEED_GPU = "BONEAGE_NEED_GPU"
"""Set to 1 where a GPU is paid for or counted, so that nothing trains on the CPU beside it."""
_NOTEBOOK_S = 11.5 * 3600
"""Kaggle and Colab end a session after 12 hours; https://www.kaggle.com/docs/notebooks, the Colab FAQ."""


def environment_limit_s() -> tuple[float | None, str]:
    """Seconds from now until the surroundings end this process, and what they are called; None where nothing does."""
    if end := os.environ.get("SLURM_JOB_END_TIME", ""):
        return (float(end) - time.time() if end.isdigit() else None), "end of the Slurm job"
    if is_on():  # here the age of the machine says nothing: a laptop may be up for days
        return None, ""
    for variable, name in (("KAGGLE_KERNEL_RUN_TYPE", "Kaggle"), ("COLAB_RELEASE_TAG", "Colab")):
        if variable in os.environ:
            return _NOTEBOOK_S - _machine_age_s(), f"limit of the {name} session"
    return None, ""


def _machine_age_s() -> float:
    """How long this container has been up: the age of its first process."""
    try:
        started_ticks = int(Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19])
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, uptime_s - started_ticks / os.sysconf("SC_CLK_TCK"))


def is_chief() -> bool:
    """Of the machines that TF_CONFIG names, one writes; without it, this one."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        task, has_chief = config.get("task", {}), bool(config.get("cluster", {}).get("chief"))
    except (ValueError, AttributeError):
        return True
    first = {"chief": 0} if has_chief else {"worker": 0}
    return not task or first.get(task.get("type")) == task.get("index", 0)


# == gpus: Which GPUs a rented machine really has, asked before anything costs time.


class NoGpu(ContractError):
    """The machine that was rented has not the GPU that was asked for."""


def check_gpus(expected: int, place: str, advice: str) -> None:
    """Prints which GPUs this machine has, and a warning where they are fewer than `expected`.

    `place` is who rents it out, `advice` what to do where it has none.

    Raises:
        NoGpu: it has none.
    """
    found, said = _gpus()
    if not found:
        raise NoGpu(f"{place} gave no GPU: {said}. {advice}")
    for line in found:
        print(line.partition(" (UUID")[0], flush=True)
    if len(found) < expected:
        print(f"warning: {expected} GPUs were expected, {len(found)} given; the training takes longer", flush=True)


def _gpus() -> tuple[list[str], str]:
    """The lines of ``nvidia-smi -L``, one a GPU, and what else it said."""
    program = shutil.which("nvidia-smi")
    if not program:
        return [], "there is no nvidia-smi"
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], f"nvidia-smi does not answer ({error})"
    said = f"{done.stdout} {done.stderr}".strip()
    return [line for line in done.stdout.splitlines() if line.startswith("GPU ")], f"nvidia-smi says {said!r}"


# == rehearsal: A rehearsal: the very trainer that will run on a rented machine, here, on a few other images, cut short.

EPOCHS = 2


def is_on() -> bool:
    return os.environ.get("BONEAGE_REHEARSAL") == "1"


def shortened(job: Job, pack: PackFolder) -> Job:
    """`job` in two epochs at most, for whatever images `pack` has; prints what was changed.

    Raises:
        ContractError: there is no pack.
    """
    train = job.train.shortened(min(EPOCHS, job.train.epochs))
    before, after = dataclasses.asdict(job.train), dataclasses.asdict(train)
    changes = [f"{key} {before[key]} -> {after[key]}" for key in after if after[key] != before[key]]
    print(f"rehearsal: {', '.join(changes) or 'nothing had to be cut'}", flush=True)
    return dataclasses.replace(job, train=train, data=pack.job_data())

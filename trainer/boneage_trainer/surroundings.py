"""What the place a training runs in says of itself: when it ends the session, and who of several machines writes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from boneage_trainer import rehearsal

NEED_GPU = "BONEAGE_NEED_GPU"
"""Set to 1 where a GPU is paid for or counted, so that nothing trains on the CPU beside it."""
_NOTEBOOK_S = 11.5 * 3600
"""Kaggle and Colab end a session after 12 hours; https://www.kaggle.com/docs/notebooks, the Colab FAQ."""


def environment_limit_s() -> tuple[float | None, str]:
    """Seconds from now until the surroundings end this process, and what they are called; None where nothing does."""
    if end := os.environ.get("SLURM_JOB_END_TIME", ""):
        return (float(end) - time.time() if end.isdigit() else None), "end of the Slurm job"
    if rehearsal.is_on():  # here the age of the machine says nothing: a laptop may be up for days
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

"""Where a job comes from: versions and the git state of the folder it was submitted from."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from pathlib import Path
from typing import Any

import boneage_trainer

_GIT_TIMEOUT_S = 20


def collect(folder: Path) -> dict[str, Any]:
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

"""What jobs find on an emulated machine: an interpreter, an `nvidia-smi`; and how to end all that they started."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def kill_marked(mark: str) -> None:
    """Kills each process whose environment has `mark`, NAME=VALUE, wherever it went. Known on Linux only."""
    for pid in _marked(os.fsencode(mark) + b"\0"):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _marked(mark: bytes) -> Iterator[int]:
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environment.read_bytes():
                yield int(environment.parent.name)


def _python(python: str) -> str:
    """The given interpreter, unless a command only asks for a module, or would install one on this machine."""
    own = f'exec {shlex.quote(sys.executable)} "$@"'
    return f'case "$1 $2" in "-m pip") echo "pip installs nothing here"; exit;; -c*) {own};; esac\n' + (
        f'exec {shlex.quote(python)} "$@"'
    )


def python_folder(folder: Path, python: str, gpus: int, gpu: str = "Tesla T4") -> Path:
    """The interpreter under the names that commands use, and an `nvidia-smi` that knows its cards."""
    folder.mkdir(exist_ok=True)
    cards = [f"echo 'GPU {at}: {gpu} (UUID: GPU-{at:08x}-0000-4000-8000-0123456789ab)'" for at in range(gpus)]
    programs = {name: _python(python) for name in ("python", "python3")}
    programs["nvidia-smi"] = "\n".join(cards) or "exit 9"
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder

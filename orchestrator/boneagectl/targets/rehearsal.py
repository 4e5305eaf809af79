"""What every rehearsal needs: synthetic hands, a pack of them, and a program whose output is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import boneage_trainer
from boneagectl.errors import MachineError

IMAGES, SIZE_PX = 32, 96
ENVIRONMENT = {"BONEAGE_REHEARSAL": "1"}
_STDERR = 2


def synthesize_images(tree: Path, python: str) -> None:
    """Writes synthetic hands to `tree`, in the layout of the Kaggle dataset."""
    _run_module(python, "data.synth", str(tree), "--n", str(IMAGES), "--size-px", str(SIZE_PX))


def prepare_pack(tree: Path, out: Path, python: str) -> None:
    """Prepares the pack `out` from `tree`."""
    _run_module(python, "data.prepare", str(tree), "--out", str(out), "--size-px", str(SIZE_PX))


def _run_module(python: str, name: str, *arguments: str) -> None:
    source = str(Path(boneage_trainer.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    command = [python, "-m", f"boneage_trainer.{name}", *arguments]
    if subprocess.run(command, stdout=_STDERR, check=False, env=environment).returncode:
        raise MachineError(f"{python} cannot run boneage_trainer.{name}", "pip install 'boneagectl[train]'")


def clean_environment() -> dict[str, str]:
    """This environment without PYTHONPATH: the generated job must contain all its code."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def run_program(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Runs `command` in `folder` and yields its lines, which are also shown on standard error.

    Raises:
        MachineError: its exit code is not 0.
    """
    last = "it printed nothing"
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            print(f"  {line}", end="", file=sys.stderr, flush=True)
            last = line.strip() or last
            yield line.rstrip("\n")
    if process.returncode:
        raise MachineError(f"exit code {process.returncode}: {last}", "nothing was sent or reserved")

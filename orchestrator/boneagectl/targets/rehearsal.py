"""What every rehearsal needs: synthetic hands, and a program that is run here while a person watches."""

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
    """Synthetic hands as a tree like the Kaggle set's."""
    _module(python, "data.synth", str(tree), "--n", str(IMAGES), "--size-px", str(SIZE_PX))


def prepare_pack(tree: Path, out: Path, python: str) -> None:
    """`tree` as a pack."""
    _module(python, "data.prepare", str(tree), "--out", str(out), "--size-px", str(SIZE_PX))


def _module(python: str, name: str, *arguments: str) -> None:
    source = str(Path(boneage_trainer.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])}
    command = [python, "-m", f"boneage_trainer.{name}", *arguments]
    if subprocess.run(command, stdout=_STDERR, check=False, env=environment).returncode:
        raise MachineError(f"{python} cannot run boneage_trainer.{name}", "pip install 'boneagectl[train]'")


def clean_environment() -> dict[str, str]:
    """This environment, in which what is sent must bring all its code with it."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def run_program(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Runs `command` in `folder`; its lines as they come, also shown on standard error.

    Raises:
        MachineError: it ended with another code than 0.
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
        raise MachineError(f"it ended with {process.returncode}: {last}", "nothing was sent or booked")

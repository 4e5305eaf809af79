"""Hands a command over to the trainer's own module, in a process of its own, which prints its own errors."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence

import typer

from boneagectl.errors import MachineError


def run(module: str, arguments: Sequence[object], needs: Sequence[str], extra: str, json: bool) -> None:
    """Runs ``boneage_trainer.MODULE`` and ends with its exit code.

    Raises:
        MachineError: a package in `needs` is missing; `extra` would bring it.
    """
    for package in needs:
        if importlib.util.find_spec(package) is None:
            raise MachineError(
                f"{module} needs {package}, which is not installed", f"pip install 'boneagectl[{extra}]'"
            )
    command = [sys.executable, "-m", f"boneage_trainer.{module}", *map(str, arguments), *(["--json"] if json else [])]
    raise typer.Exit(subprocess.run(command, check=False).returncode)

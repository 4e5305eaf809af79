"""Hands a command over to the trainer's own module, in a process of its own, which prints its own errors."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from boneage_trainer.contract import RunFolder
from boneagectl.cli import options
from boneagectl.errors import MachineError, NotYet

RunOrFolder = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, 'last', or a folder with model.keras.")
]
MODEL_NEEDS = ("numpy", "pandas", "cv2", "keras", "tensorflow")
"""What whatever opens a model needs, all of it in the extra ``train``."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has a model: its folder, what it is called (None: by itself) and where its exports go."""

    folder: Path
    name: str | None
    exports: Path


def run(module: str, arguments: Sequence[object], needs: Sequence[str], extra: str, json: bool) -> None:
    """Runs ``boneage_trainer.MODULE`` and ends with its exit code.

    Raises:
        MachineError: a package in `needs` is missing; `extra` would bring it.
    """
    require(module.rpartition(".")[2], needs, extra)
    # First, since a name that begins with a dash can only follow after "--".
    command = [sys.executable, "-m", f"boneage_trainer.{module}", *(["--json"] if json else []), *map(str, arguments)]
    raise typer.Exit(subprocess.run(command, check=False).returncode)


def require(what: str, needs: Sequence[str], extra: str) -> None:
    """Raises MachineError where a package in `needs` is missing; `extra` would bring it."""
    for package in needs:
        if importlib.util.find_spec(package) is None:
            raise MachineError(f"{what} needs {package}, which is not installed", f"pip install 'boneagectl[{extra}]'")


def finished(run: str) -> Finished:
    """A folder that holds model.keras, or the run of that name, which is collected.

    Raises:
        UsageError: neither. NotYet: the run has no model so far.
    """
    folder = RunFolder(Path(run))
    if folder.model.is_file():
        return Finished(folder.root, None, folder.root / "export")
    with options.workflow() as flow:
        flow.refresh()
        found = flow.ledger.find_run(run)
        collected = RunFolder(flow.collect(found).folder)
        if not collected.model.is_file():
            state = found.latest.state
            raise NotYet(f"{found.run_id} has no model yet: it is {state}", f"boneagectl watch {found.run_id}")
        return Finished(collected.root, found.run_id, flow.home.run(found.run_id) / "export")

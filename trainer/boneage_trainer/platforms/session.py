"""What a remote session does on every platform: check that the pack fits, run the trainer, record how it ended.

Standard library only. The trainer has a process of its own: one that is killed, for instance for lack of memory,
still leaves its run folder.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boneage_trainer.contract import ContractError, PackFolder, RunFolder, parse_object, write_json, write_manifest
from boneage_trainer.platforms.detect import NEED_GPU
from boneage_trainer.platforms.subprocesses import ProcessResult, SubprocessRunner


def print_line(text: str) -> None:
    print(text, flush=True)


def failed_state(reason: str) -> dict[str, Any]:
    """The fields of ``state.json`` for a failure that the trainer could not record itself."""
    return {"state": "failed", "reason": " ".join(reason.split())[:500], "updated_s": round(time.time(), 3)}


def mismatch_reason(card: Mapping[str, Any], fingerprint: str, image_size_px: int) -> str:
    """Why the pack with this `card` is not the one that the job needs, or "".

    With an empty `fingerprint` any images of the right size fit.
    """
    actual, size_px = card["fingerprint"], card["image_size_px"]
    if fingerprint:
        return "" if actual == fingerprint else f"has fingerprint {actual[:12]}, the job needs {fingerprint[:12]}"
    return "" if size_px == image_size_px else f"has images of {size_px} px, the job needs {image_size_px} px"


class TrainerPrograms:
    """The trainer's programs in the zip `bundle`, run in `folder`."""

    def __init__(self, runner: SubprocessRunner, bundle: Path, folder: Path, needs_gpu: bool) -> None:
        self._runner, self._bundle, self._folder, self._needs_gpu = runner, bundle, folder, needs_gpu

    def prepare_pack(self, tree: Path, pack: PackFolder, image_size_px: int, limit_s: float) -> None:
        """Makes `pack` of the radiographs in `tree`.

        Raises:
            ContractError: the program failed or was killed at its limit.
        """
        print_line(f"preparing the images in {tree} at {image_size_px} px")
        command = [sys.executable, "-m", "boneage_trainer.data.prepare", str(tree), "--out", str(pack.root)]
        command += ["--size-px", str(image_size_px)]
        result = self._runner.run(command, self._environment(), self._folder, max(1.0, limit_s), merged=True)
        if result.code:
            raise ContractError(f"preparing the images in {tree} failed: {result.description}")

    def train_leg(
        self, pack: PackFolder, out: RunFolder, leg: str, limit_s: int, grace_s: float, earlier: RunFolder | None,
        on_line: Callable[[str], None] | None = None,
    ) -> ProcessResult:  # fmt: skip
        """Trains `leg` into `out`. The trainer ends itself at `limit_s`; it is killed `grace_s` later.

        Its lines are given to `on_line`, or go where ours go.
        """
        command = [sys.executable, str(self._bundle), "--data", str(pack.root), "--out", str(out.root)]
        command += ["--leg", leg, "--time-limit-s", str(limit_s)]
        command += ["--resume", str(earlier.root)] if earlier else []
        environment, kill_after_s = self._environment(), max(1.0, limit_s + grace_s)
        if on_line:
            return self._runner.listen(command, environment, self._folder, kill_after_s, on_line)
        return self._runner.run(command, environment, self._folder, kill_after_s)

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name != NEED_GPU}
        if self._needs_gpu:
            environment[NEED_GPU] = "1"
        paths = filter(None, (str(self._bundle), environment.get("PYTHONPATH")))
        return environment | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def finalize_run(out: RunFolder, result: ProcessResult) -> dict[str, Any]:
    """Returns the run's final state, and writes it into `out` with a new manifest."""
    state = failed_state(f"the trainer left no state: {result.description}")
    if out.state.exists():
        state = parse_object(out.state.read_text(encoding="utf-8"), out.state.name)
        if state["state"] == "running":
            state |= failed_state(f"trainer {result.description}")
        write_json(out.state, state)
    if out.root.is_dir():
        write_manifest(out)  # a trainer that was killed had no time to
    return state

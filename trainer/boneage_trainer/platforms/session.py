"""What a session does on any rented machine: see that the images fit, run the trainer, say how it went.

Standard library only: the training has a process of its own, so that one that is killed, for want of memory
say, still leaves its run behind.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from boneage_trainer.contract import (
    ContractError,
    PackFolder,
    RunFolder,
    parse_object,
    write_json,
    write_manifest,
)
from boneage_trainer.platforms.detect import NEED_GPU
from boneage_trainer.platforms.subprocesses import Children, Ended


def say(text: str) -> None:
    print(text, flush=True)


def failed(reason: str) -> dict[str, Any]:
    """What ``state.json`` says where the trainer could not say it itself."""
    return {"state": "failed", "reason": " ".join(reason.split())[:500], "updated_s": round(time.time(), 3)}


def misfit(card: Mapping[str, Any], fingerprint: str, image_size_px: int) -> str:
    """Why a pack with this `card` is not the one a job wants, or nothing; `fingerprint` is empty where any will do."""
    found, size_px = card["fingerprint"], card["image_size_px"]
    if fingerprint:
        return "" if found == fingerprint else f"has fingerprint {found[:12]}, the job wants {fingerprint[:12]}"
    return "" if size_px == image_size_px else f"has images of {size_px} px, the job wants {image_size_px} px"


class Programs:
    """The trainer's programs out of the zip `bundle`, run in `folder`."""

    def __init__(self, children: Children, bundle: Path, folder: Path, needs_gpu: bool) -> None:
        self._children, self._bundle, self._folder, self._needs_gpu = children, bundle, folder, needs_gpu

    def prepare(self, tree: Path, pack: PackFolder, image_size_px: int, limit_s: float) -> None:
        """Makes `pack` of the radiographs in `tree`.

        Raises:
            ContractError: it ended without one.
        """
        say(f"preparing the images in {tree} at {image_size_px} px")
        command = [sys.executable, "-m", "boneage_trainer.data.prepare", str(tree), "--out", str(pack.root)]
        command += ["--size-px", str(image_size_px)]
        ended = self._children.run(command, self._environment(), self._folder, max(1.0, limit_s), merged=True)
        if ended.code:
            raise ContractError(f"the images in {tree} were not prepared: {ended.words}")

    def train(
        self, pack: PackFolder, out: RunFolder, leg: str, limit_s: int, grace_s: float, earlier: RunFolder | None,
        heard: Callable[[str], None] | None = None,
    ) -> Ended:  # fmt: skip
        """Trains `leg` into `out`; at `limit_s` the trainer ends itself, `grace_s` later it is killed.

        Its lines go to `heard`, or where ours go.
        """
        command = [sys.executable, str(self._bundle), "--data", str(pack.root), "--out", str(out.root)]
        command += ["--leg", leg, "--time-limit-s", str(limit_s)]
        command += ["--resume", str(earlier.root)] if earlier else []
        given, all_s = self._environment(), max(1.0, limit_s + grace_s)
        if heard:
            return self._children.listen(command, given, self._folder, all_s, heard)
        return self._children.run(command, given, self._folder, all_s)

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name != NEED_GPU}
        if self._needs_gpu:
            environment[NEED_GPU] = "1"
        paths = filter(None, (str(self._bundle), environment.get("PYTHONPATH")))
        return environment | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def settled(out: RunFolder, ended: Ended) -> dict[str, Any]:
    """How the training that `ended` went; also written into `out`, with a new list of what it left."""
    state = _last_state(out, ended)
    if out.root.is_dir():
        if out.state.exists():
            write_json(out.state, state)
        write_manifest(out)  # anew: a trainer that was killed had no time to
    return state


def _last_state(out: RunFolder, ended: Ended) -> dict[str, Any]:
    """The trainer's last word, or ours where it ended without one."""
    if not out.state.exists():
        return failed(f"the trainer left no state: {ended.words}")
    state = parse_object(out.state.read_text(encoding="utf-8"), out.state.name)
    return state if state["state"] != "running" else {**state, **failed(f"trainer {ended.words}")}

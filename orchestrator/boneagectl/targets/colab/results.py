"""Brings the zip that a notebook offered: checked as if a stranger had sent it, all of it or nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, parse_object
from boneagectl import artifacts
from boneagectl.errors import MachineError, UsageError
from boneagectl.records import Artifacts

_AGAIN = "download it anew: run the last cell of the notebook, or take it from the folder boneagectl of your Drive"


def bring(zipped: Path, leg_id: str, dest: RunFolder) -> Artifacts:
    """Unpacks the results of `leg_id` beside `dest`, checks them, and moves them there; repeatable.

    Raises:
        UsageError: there is no such file, or it holds another leg's results, or older ones than `dest`.
        MachineError: it is torn, hostile, or holds something else than its own list says; nothing was brought.
    """
    if not zipped.is_file():
        raise UsageError(f"there is no file {zipped}", f"name the zip that was downloaded: --from results-{leg_id}.zip")
    place = dest.root.with_name(f".{dest.root.name}.{os.getpid()}.incoming")
    try:
        incoming = archive.unpack_run(zipped, place)
        _check(zipped, _state(incoming), leg_id, dest)
        for path in sorted(path for path in place.rglob("*") if path.is_file()):
            artifacts.put(path, dest.root / path.relative_to(place))
    except ContractError as error:
        raise MachineError(f"nothing was brought: {error}", _AGAIN) from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return artifacts.of(dest)


def _check(zipped: Path, state: dict[str, Any], leg_id: str, dest: RunFolder) -> None:
    if state.get("leg") != leg_id:
        raise UsageError(
            f"{zipped.name} holds the results of {state.get('leg')!r}, not of {leg_id}; nothing was brought",
            f"name the zip of this leg: --from results-{leg_id}.zip",
        )
    if dest.state.exists() and _reached(state) < _reached(_state(dest)):
        raise UsageError(
            f"{zipped.name} is from an earlier session than what was collected before; nothing was brought",
            "take the newest download: browsers number them, as in results (1).zip",
        )


def _state(folder: RunFolder) -> dict[str, Any]:
    """Raises ContractError where there is none."""
    try:
        return parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name)
    except (OSError, UnicodeDecodeError):
        raise ContractError(f"it has no readable {folder.state.name}") from None


def _reached(state: dict[str, Any]) -> tuple[int, bool]:
    epoch = state.get("epoch")
    return epoch if isinstance(epoch, int) else 0, state.get("state") == "complete"

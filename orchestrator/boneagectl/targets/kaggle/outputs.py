"""Brings what a session left: streamed to disk, resumed where it broke off, checked, and never outside its folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, parse_object, write_atomic
from boneagectl import artifacts
from boneagectl.errors import MachineError, NotYet
from boneagectl.models import Artifacts
from boneagectl.targets import http
from boneagectl.targets.kaggle.status import KernelLog

ZIP = "run.zip"
LOOSE = "run/"
_INCOMING = ".incoming"

Files = list[tuple[str, str]]


_STORAGE = http.Provider("Kaggle's file storage", sign_in="boneagectl collect", refused="run the same command again")
"""Its addresses are signed for about an hour, and are listed afresh by each call."""


def download_outputs(files: Files, log: KernelLog, dest: RunFolder) -> Artifacts:
    """Downloads the run folder among `files` (name, address) into `dest`, with the log.

    Raises:
        NotYet: there is nothing, not even a log.
        MachineError: a name points outside the folder, or what came does not match the leg's own list.
        Unreachable: the connection broke again and again; what came so far is kept and gone on with.
    """
    for name, _ in files:
        artifacts.check_name(name)
    incoming = dest.root / _INCOMING
    wanted = {name: url for name, url in files if name == ZIP or name.startswith(LOOSE)}
    with http.session() as session:
        if ZIP in wanted:
            if not (incoming / ZIP).exists():  # else it is whole, and what came after failed
                http.download(session, wanted[ZIP], incoming / ZIP, _STORAGE)
            found = unpack_outputs(incoming / ZIP, log, dest)
        else:
            _write_log(log, dest)
            found = artifacts.read_artifacts(dest, dict(_loose(session, wanted, incoming, dest)))
    shutil.rmtree(incoming, ignore_errors=True)
    return found


def _loose(session: Any, wanted: dict[str, str], incoming: Path, dest: RunFolder) -> Iterator[tuple[str, str]]:
    """Brings files one by one; name and sha256 of each."""
    for name, url in wanted.items():
        sha256, place = http.download(session, url, incoming / name, _STORAGE), name.removeprefix(LOOSE)
        artifacts.move_into_place(incoming / name, dest.root / place)
        yield place, sha256


def unpack_outputs(zipped: Path, log: KernelLog, dest: RunFolder) -> Artifacts:
    """The run folder in `zipped`, all of it or nothing, each file as the leg's own list says.

    Raises:
        MachineError: the archive is damaged, hostile, or holds something else than its list says.
    """
    place = zipped.with_name("unpacked")
    try:
        archive.unpack_run(zipped, place)
        for path in sorted(place.rglob("*")):
            if path.is_file():
                artifacts.move_into_place(path, dest.root / path.relative_to(place))
    except ContractError as error:
        zipped.unlink()
        raise MachineError(f"nothing was brought: {error}", "boneagectl collect loads it anew") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    _write_log(log, dest)
    return artifacts.read_artifacts(dest)


def _write_log(log: KernelLog, dest: RunFolder) -> None:
    if log.lines:
        write_atomic(dest.log, "".join(f"{line}\n" for line in log.lines))


def write_log_outputs(log: KernelLog, dest: RunFolder) -> Artifacts:
    """The log and the epochs' lines alone: what there is of a session that runs, or was deleted.

    Raises:
        NotYet: there is no line yet.
    """
    if not log.lines:
        raise NotYet("Kaggle shows no line of its log yet", "boneagectl watch")
    _write_log(log, dest)
    if log.metrics:
        write_atomic(dest.metrics, "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in log.metrics))
    return artifacts.read_artifacts(dest)


def read_complete_outputs(dest: RunFolder) -> Artifacts | None:
    """What `dest` holds, if that is all of a leg that ended in order; else None."""
    try:
        found, state = artifacts.read_artifacts(dest), parse_object(dest.state.read_text(), dest.state.name)["state"]
    except (OSError, ValueError, KeyError, NotYet):
        return None
    is_whole = state in ("complete", "paused") and dest.log.exists() and dest.manifest.exists() and not found.unlisted
    return found if is_whole else None

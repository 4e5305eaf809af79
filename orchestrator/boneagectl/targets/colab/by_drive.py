"""What a notebook has left on the user's Drive: how far a leg is, and its run folder, checked.

A leg has two places there, ``a`` and ``b``, written in turn, each with its list last: one of them is whole at any
time. At its end a session puts the zip of all results beside them. The newest whole one of the three counts.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of, write_atomic
from boneagectl import artifacts
from boneagectl.errors import NotYet
from boneagectl.records import Artifacts
from boneagectl.targets.colab import drive_results
from boneagectl.targets.colab.drive_files import DriveFile, DriveFiles
from boneagectl.targets.colab.drive_rest import Changed, Missing
from boneagectl.targets.colab.drive_results import NOTHING, Damaged, reached
from boneagectl.targets.colab.rendering import FOLDER

SLOTS = ("a", "b")
"""The trainer's `colab_drive` calls them alike."""
LOOKS_S = (1.0, 5.0)
"""Pauses before another look: the notebook may have replaced a file while it was brought."""
_NAMES = RunFolder(Path())
_CARRIED = tuple(path.as_posix() for path in (_NAMES.best, _NAMES.last, _NAMES.metrics))
_STATE, _METRICS, _MANIFEST = _NAMES.state.name, _NAMES.metrics.name, _NAMES.manifest.name
_WEIGHTS = _NAMES.last.parent.name
_INCOMING = ".incoming"


class NothingWhole(NotYet):
    """There is something of the leg, and none of it is whole at this moment."""


class Source(Protocol):
    """One of the places that hold a leg."""

    @property
    def reached(self) -> tuple[int, float]:
        """Its epoch, and when its state was written."""

    def bring(self, dest: RunFolder, incoming: Path) -> None:
        """Raises Damaged where it is something else than its list says; `dest` is then as before."""


def look(files: DriveFiles, run_id: str, leg_id: str) -> dict[str, Any] | None:
    """How far the leg is: its ``state``, and its ``metrics``, a list with an entry for each epoch.

    None where Drive holds nothing whole. Errors are those of `DriveFiles`.
    """
    for slot in sorted(_slots(files, run_id, leg_id), key=lambda one: one.reached, reverse=True):
        if (lines := slot.metrics()) is not None:
            return {"state": slot.state, "metrics": lines}
    return None


def bring(files: DriveFiles, run_id: str, leg_id: str, dest: RunFolder) -> Artifacts:
    """Brings the newest whole state of the leg into `dest`: its results, or what its last epoch left.

    Only what is not here is loaded, and what broke off goes on in the next call; what is here and newer stays.

    Raises:
        NotYet: Drive holds nothing whole of it.
        Damaged: all that is there is. MachineError: a name points outside the folder. Others: as `DriveFiles`.
    """
    for pause_s in (*LOOKS_S, None):
        try:
            return _bring(files, run_id, leg_id, dest)
        except (Changed, Missing, Damaged, NothingWhole):
            if pause_s is None:
                raise
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _bring(files: DriveFiles, run_id: str, leg_id: str, dest: RunFolder) -> Artifacts:
    sources = _sources(files, run_id, leg_id)
    incoming, here, trouble = dest.root / _INCOMING, _reached_in(dest), ""
    for source in sources:
        if here > source.reached:
            return artifacts.of(dest)
        try:
            source.bring(dest, incoming)
        except Damaged as damage:
            trouble = damage.message
        else:
            shutil.rmtree(incoming, ignore_errors=True)
            return artifacts.of(dest)
    raise Damaged(f"all that Drive has of {leg_id} is damaged: {trouble}", "run the notebook again: it goes on")


def _sources(files: DriveFiles, run_id: str, leg_id: str) -> list[Source]:
    """The newest first; the results before a slot that is not newer."""
    zips = drive_results.found(files, files.folders(FOLDER, run_id), leg_id)
    sources: list[Source] = [*zips, *_slots(files, run_id, leg_id)]
    if not sources:
        kind = NothingWhole if files.listed(files.folders(FOLDER, run_id, leg_id)) else NotYet
        raise kind(
            f"Drive has nothing whole of {leg_id} in {FOLDER}/{run_id}",
            "its first epoch brings it; is it the Google account that runs the notebook?",
        )
    return sorted(sources, key=lambda one: one.reached, reverse=True)


def _reached_in(dest: RunFolder) -> tuple[int, float]:
    """How far what is here already is, where that is whole."""
    try:
        archive.check_files(dest, [dest.state])
        return reached(parse_object(dest.state.read_text(encoding="utf-8"), dest.state.name))
    except (OSError, ContractError, UnicodeDecodeError):
        return NOTHING


# ------------------------------------------------------------------------------------------- the slots
@dataclass(frozen=True)
class Slot:
    """One of a leg's two places: its files by name, and what is known of them."""

    files: DriveFiles
    entries: Mapping[str, DriveFile]
    folders: tuple[DriveFile, ...]
    sha256: Mapping[str, str]
    manifest: bytes
    state_bytes: bytes

    @property
    def state(self) -> dict[str, Any]:
        return parse_object(self.state_bytes.decode(), _STATE)

    @property
    def reached(self) -> tuple[int, float]:
        return reached(self.state)

    def metrics(self) -> list[dict[str, Any]] | None:
        """None where they are not whole, or of another epoch."""
        try:
            content = self.files.read(self.entries[_METRICS])
            if hashlib.sha256(content).hexdigest() != self.sha256[_METRICS]:
                return None
            return [parse_object(line, _METRICS) for line in content.decode().splitlines()]
        except (KeyError, Changed, Missing, ContractError, UnicodeDecodeError):
            return None

    def bring(self, dest: RunFolder, incoming: Path) -> None:
        """The weights first and the list last, so that what is torn here does not look whole."""
        entries = self._with_weights()
        for name in (*entries, *self.sha256):
            artifacts.check_name(name)
        wanted = [name for name in _CARRIED if name in self.sha256]
        came = {name: self._fetched(entries, name, dest, incoming) for name in wanted}
        for name, path in came.items():
            if path:
                artifacts.put(path, dest.root / name)
        _write(dest.state, self.state_bytes)
        _write(dest.manifest, self.manifest)

    def _with_weights(self) -> dict[str, DriveFile]:
        """All files; the weights have a folder of their own, and one listing less where only a look is wanted."""
        weights = [folder for folder in self.folders if folder.name == _WEIGHTS]
        inner = [one for one in self.files.listed(weights) if not one.is_folder]
        return {**self.entries, **{f"{_WEIGHTS}/{name}": one for name, one in _newest(inner).items()}}

    def _fetched(self, entries: Mapping[str, DriveFile], name: str, dest: RunFolder, incoming: Path) -> Path | None:
        """Where a file came to, or nothing where it is here already."""
        here = dest.root / name
        if here.is_file() and sha256_of(here) == self.sha256[name]:
            return None
        if name not in entries:
            raise Damaged(f"{name} is missing")
        path = incoming / entries[name].md5
        self.files.fetch(entries[name], path)
        if sha256_of(path) != self.sha256[name]:
            path.unlink()
            raise Damaged(f"{name} has another sha256 than listed")
        return path


def _slots(files: DriveFiles, run_id: str, leg_id: str) -> list[Slot]:
    """Those that hold together; a leg's folder, and each in it, may have twins."""
    inside = files.listed(files.folders(FOLDER, run_id, leg_id))
    folders = [one for one in inside if one.is_folder and one.name in SLOTS]
    children = files.listed(folders)
    found = (_slot(files, [one for one in children if one.parent == folder.id]) for folder in folders)
    return [slot for slot in found if slot and slot.state.get("leg") == leg_id]


def _slot(files: DriveFiles, children: list[DriveFile]) -> Slot | None:
    """None while it is written, or where its list does not vouch for its state."""
    entries = _newest([one for one in children if not one.is_folder])
    folders = tuple(one for one in children if one.is_folder)
    try:
        manifest, state = files.read(entries[_MANIFEST]), files.read(entries[_STATE])
        said = json.loads(manifest)["files"]
        sha256 = {str(name): str(entry["sha256"]) for name, entry in said.items()}
        parse_object(state.decode(), _STATE)
    except (Changed, Missing, LookupError, TypeError, AttributeError, ValueError, ContractError):
        return None
    is_whole = sha256.get(_STATE) == hashlib.sha256(state).hexdigest()
    return Slot(files, entries, folders, sha256, manifest, state) if is_whole else None


def _newest(files: list[DriveFile]) -> dict[str, DriveFile]:
    """By name; the first of several counts, which is the newest."""
    return {one.name: one for one in reversed(files)}


def _write(path: Path, content: bytes) -> None:
    """Where it is not there as it is."""
    if not path.is_file() or path.is_symlink() or path.read_bytes() != content:
        write_atomic(path, content)

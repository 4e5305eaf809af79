"""What a notebook has left on the user's Drive: how far a leg is, and its run folder, checked.

A leg has two places there, ``a`` and ``b``, written in turn, each with its list last: one of them is whole at any
time. At its end a session puts the zip of all results beside them. The newest whole one of the three counts.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of, write_atomic
from boneagectl import artifacts
from boneagectl.errors import MachineError, NotFound, NotYet, UsageError
from boneagectl.models import Artifacts
from boneagectl.targets.colab.drive import Changed, DriveFile, DriveFiles, Seekable
from boneagectl.targets.colab.render import FOLDER

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
        except (Changed, NotFound, Damaged, NothingWhole):
            if pause_s is None:
                raise
            time.sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def _bring(files: DriveFiles, run_id: str, leg_id: str, dest: RunFolder) -> Artifacts:
    sources = _sources(files, run_id, leg_id)
    incoming, here, trouble = dest.root / _INCOMING, _reached_in(dest), ""
    for source in sources:
        if here > source.reached:
            return artifacts.read_artifacts(dest)
        try:
            source.bring(dest, incoming)
        except Damaged as damage:
            trouble = damage.message
        else:
            shutil.rmtree(incoming, ignore_errors=True)
            return artifacts.read_artifacts(dest)
    raise Damaged(f"all that Drive has of {leg_id} is damaged: {trouble}", "run the notebook again: it goes on")


def _sources(files: DriveFiles, run_id: str, leg_id: str) -> list[Source]:
    """The newest first; the results before a slot that is not newer."""
    zips = found(files, files.folders(FOLDER, run_id), leg_id)
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
        except (KeyError, Changed, NotFound, ContractError, UnicodeDecodeError):
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
                artifacts.move_into_place(path, dest.root / name)
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
    except (Changed, NotFound, LookupError, TypeError, AttributeError, ValueError, ContractError):
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


# == results: Brings the zip that a notebook offered: checked as if a stranger had sent it, all of it or nothing.

_AGAIN = "download it anew: run the last cell of the notebook, or take it from the folder boneagectl of your Drive"


def results_bring(zipped: Path, leg_id: str, dest: RunFolder) -> Artifacts:
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
            artifacts.move_into_place(path, dest.root / path.relative_to(place))
    except ContractError as error:
        raise MachineError(f"nothing was brought: {error}", _AGAIN) from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return artifacts.read_artifacts(dest)


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


# == drive_results: The results that a session has put on Drive as one zip: looked into from afar, and brought where

NOTHING = (-1, 0.0)
_DRIVE_RESULTS_NAMES = RunFolder(Path())
_SMALL_BYTES = 1 << 22
_MOST = 3
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, LookupError, ValueError)
"""What zipfile raises for what is torn, encrypted or no zip, and what a state that is none does."""


class Damaged(MachineError):
    """What is on Drive is something else than its own list says."""


def reached(state: dict[str, Any]) -> tuple[int, float]:
    """The epoch, and when it was written: the last word of a session has the same epoch as its last epoch."""
    epoch, updated_s = state.get("epoch"), state.get("updated_s")
    return epoch if isinstance(epoch, int) else 0, float(updated_s) if isinstance(updated_s, int | float) else 0.0


@dataclass(frozen=True)
class Results:
    """One zip of results; what cannot be looked into has reached nothing, and counts where there is nothing else."""

    files: DriveFiles
    file: DriveFile
    leg_id: str
    reached: tuple[int, float] = NOTHING
    names: tuple[str, ...] = ()
    manifest: bytes = b""

    def bring(self, dest: RunFolder, incoming: Path) -> None:
        """Checked as a zip that a stranger sent; not loaded again where all of it is here."""
        if self._is_here(dest):
            return
        part, zipped = incoming / self.file.md5, incoming / name(self.leg_id)
        self.files.fetch(self.file, part)
        os.replace(part, zipped)
        try:
            self._unpacked(zipped, RunFolder(incoming / "run"), dest)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _unpacked(self, zipped: Path, whole: RunFolder, dest: RunFolder) -> None:
        """By way of `whole`, so that nothing lies beside `dest` meanwhile; the list comes last."""
        results_bring(zipped, self.leg_id, whole)
        paths = [path for path in whole.root.rglob("*") if path.is_file()]
        for path in sorted(paths, key=lambda path: path == whole.manifest):
            artifacts.move_into_place(path, dest.root / path.relative_to(whole.root))

    def _is_here(self, dest: RunFolder) -> bool:
        if not self.manifest or not dest.manifest.is_file() or dest.manifest.read_bytes() != self.manifest:
            return False
        try:
            return not artifacts.read_artifacts(dest).unlisted and all(
                (dest.root / one).is_file() for one in self.names
            )
        except NotYet:
            return False


def name(leg_id: str) -> str:
    return f"results-{leg_id}.zip"


def found(files: DriveFiles, folders: Sequence[DriveFile], leg_id: str) -> list[Results]:
    """The results of the leg in `folders`: none, one, or the newest of several that are called alike."""
    there = [one for one in files.listed(folders, name(leg_id)) if not one.is_folder]
    return [_looked_into(files, one, leg_id) for one in there[:_MOST]]


def _looked_into(files: DriveFiles, file: DriveFile, leg_id: str) -> Results:
    """By a few short reads: a zip has its list at its end, and ours have the state at their beginning."""
    stream = io.BufferedReader(Seekable(files, file))
    try:
        with zipfile.ZipFile(stream) as opened:
            state = parse_object(
                _read(opened, _DRIVE_RESULTS_NAMES.state.name).decode(), _DRIVE_RESULTS_NAMES.state.name
            )
            manifest, names = _read(opened, _DRIVE_RESULTS_NAMES.manifest.name), tuple(opened.namelist())
    except (*_BROKEN, ContractError):
        return Results(files, file, leg_id)
    return Results(files, file, leg_id, reached(state) if state.get("leg") == leg_id else NOTHING, names, manifest)


def _read(opened: zipfile.ZipFile, name: str) -> bytes:
    if opened.getinfo(name).file_size > _SMALL_BYTES:
        raise zipfile.BadZipFile(f"{name} is too large")
    return opened.read(name)

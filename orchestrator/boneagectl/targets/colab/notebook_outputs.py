"""What a notebook leg leaves: its progress and outputs on the user's Drive, and the zip that it offers as a download.

On Drive a leg has two slots, ``a`` and ``b``, written in turn with the manifest last, so that one of them is complete
at any time. At its end a session puts the zip of all results beside them. The most advanced complete one counts.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of, write_atomic
from boneagectl import artifacts
from boneagectl.errors import MachineError, NotFound, NotYet, ProviderRefused, UsageError
from boneagectl.models import Artifacts
from boneagectl.targets import http
from boneagectl.targets.colab.drive import DriveClient, DriveFile, DriveStream
from boneagectl.targets.colab.render import FOLDER

SLOTS = ("a", "b")
"""As in the trainer's `platforms.colab_drive`."""
_NAMES = RunFolder(Path())
_STATE, _METRICS, _MANIFEST = _NAMES.state.name, _NAMES.metrics.name, _NAMES.manifest.name
_WEIGHTS = _NAMES.last.parent.name
_SLOT_FILES = tuple(path.as_posix() for path in (_NAMES.best, _NAMES.last, _NAMES.metrics))
_INCOMING = ".incoming"
_MAX_ZIPS = 3
_MAX_ENTRY_BYTES = 1 << 22
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, LookupError, ValueError)
"""What zipfile raises for a file that is torn, encrypted or no zip, and what an invalid state raises."""
_DOWNLOAD_AGAIN = "download it again: run the notebook's last cell, or take it from the folder boneagectl of your Drive"

_Progress = tuple[int, bool, float]
_NO_PROGRESS: _Progress = (-1, False, 0.0)


class DamagedOutputs(ProviderRefused):
    """What is on Drive does not match its own manifest."""


class IncompleteOutputs(NotYet):
    """Drive has files of the leg, but no complete set at this moment."""


class OutputSource(Protocol):
    """One place on Drive that holds a leg's outputs."""

    @property
    def progress(self) -> _Progress:
        """Its epoch, whether the run is complete, and when its state was written (Unix seconds)."""

    def download(self, dest: RunFolder, incoming: Path) -> None:
        """Raises DamagedOutputs where it does not match its manifest; `dest` is then unchanged."""


def results_name(leg_id: str) -> str:
    return f"results-{leg_id}.zip"


def read_progress(files: DriveClient, run_id: str, leg_id: str) -> dict[str, Any] | None:
    """The leg's ``state``, and its ``metrics``, a list with one entry per epoch.

    None where Drive holds nothing complete. Errors are those of `DriveClient`.
    """
    for slot in sorted(_find_slots(files, run_id, leg_id), key=lambda slot: slot.progress, reverse=True):
        if (metrics := slot.load_metrics()) is not None:
            return {"state": slot.state, "metrics": metrics}
    return None


def download_outputs(files: DriveClient, run_id: str, leg_id: str, dest: RunFolder) -> Artifacts:
    """Downloads the leg's most advanced complete outputs into `dest`: its results, or its last epoch.

    Files that are there are skipped, interrupted downloads resume in the next call, and newer local outputs stay.

    Raises:
        NotYet: Drive holds nothing complete of the leg. DamagedOutputs: everything that it holds is damaged.
        MachineError: a name points outside the folder. Others: as `DriveClient`.
    """

    def attempt() -> Artifacts:
        try:
            return _download(files, run_id, leg_id, dest)
        except (http.ContentChanged, NotFound, DamagedOutputs, IncompleteOutputs) as error:
            raise http.Transient(error) from None  # the notebook is writing; Drive may list it only in part

    return http.repeat(attempt, http.retry_policy())


def _download(files: DriveClient, run_id: str, leg_id: str, dest: RunFolder) -> Artifacts:
    zips = _find_results(files, run_id, leg_id)
    sources: list[OutputSource] = [*zips, *_find_slots(files, run_id, leg_id)]  # a zip wins over an equal slot
    if not sources:
        kind = IncompleteOutputs if files.list_files(files.find_folders(FOLDER, run_id, leg_id)) else NotYet
        raise kind(
            f"Drive has nothing complete of {leg_id} in {FOLDER}/{run_id}",
            "wait for its first epoch; check that this is the Google account that runs the notebook",
        )
    incoming, local, damage = dest.root / _INCOMING, _local_progress(dest), ""
    for source in sorted(sources, key=lambda source: source.progress, reverse=True):
        if local > source.progress:
            return artifacts.read_artifacts(dest)
        try:
            source.download(dest, incoming)
        except DamagedOutputs as error:
            damage = error.message
        else:
            shutil.rmtree(incoming, ignore_errors=True)
            return artifacts.read_artifacts(dest)
    raise DamagedOutputs(
        f"all outputs of {leg_id} on Drive are damaged: {damage}", "open the notebook again: it resumes"
    )


def _local_progress(dest: RunFolder) -> _Progress:
    try:
        archive.check_files(dest, [dest.state])
        return _progress(parse_object(dest.state.read_text(encoding="utf-8"), dest.state.name))
    except (OSError, ContractError, UnicodeDecodeError):
        return _NO_PROGRESS


def _progress(state: Mapping[str, Any]) -> _Progress:
    """The time decides between states of one epoch: a session's final state has the same epoch as its last epoch."""
    epoch, updated_s = state.get("epoch"), state.get("updated_s")
    is_complete = state.get("state") == "complete"
    return (
        epoch if isinstance(epoch, int) else 0,
        is_complete,
        float(updated_s) if isinstance(updated_s, int | float) else 0.0,
    )


# ------------------------------------------------------------------------------------ the slots on Drive
@dataclass(frozen=True)
class DriveSlot:
    """One of a leg's two slots: its entries by name, and its manifest and state."""

    files: DriveClient
    entries: Mapping[str, DriveFile]
    folders: tuple[DriveFile, ...]
    sha256: Mapping[str, str]
    manifest: bytes
    state_bytes: bytes

    @property
    def state(self) -> dict[str, Any]:
        return parse_object(self.state_bytes.decode(), _STATE)

    @property
    def progress(self) -> _Progress:
        return _progress(self.state)

    def load_metrics(self) -> list[dict[str, Any]] | None:
        """None where they are incomplete, or of another epoch."""
        try:
            content = self.files.read_file(self.entries[_METRICS])
            if hashlib.sha256(content).hexdigest() != self.sha256[_METRICS]:
                return None
            return [parse_object(line, _METRICS) for line in content.decode().splitlines()]
        except (KeyError, http.ContentChanged, NotFound, ContractError, UnicodeDecodeError):
            return None

    def download(self, dest: RunFolder, incoming: Path) -> None:
        """Moves the weights in first and the manifest last, so that an interrupted download does not look complete."""
        weights = [folder for folder in self.folders if folder.name == _WEIGHTS]
        inner = [entry for entry in self.files.list_files(weights) if not entry.is_folder]
        entries = {**self.entries, **{f"{_WEIGHTS}/{name}": entry for name, entry in _newest_by_name(inner).items()}}
        for name in (*entries, *self.sha256):
            artifacts.check_name(name)
        names = [name for name in _SLOT_FILES if name in self.sha256]
        arrived = {name: self._download_file(entries, name, dest, incoming) for name in names}
        for name, path in arrived.items():
            if path:
                artifacts.move_into_place(path, dest.root / name)
        for path, content in ((dest.state, self.state_bytes), (dest.manifest, self.manifest)):
            if not path.is_file() or path.is_symlink() or path.read_bytes() != content:
                write_atomic(path, content)

    def _download_file(
        self, entries: Mapping[str, DriveFile], name: str, dest: RunFolder, incoming: Path
    ) -> Path | None:
        """The path of the downloaded file, or None where `dest` has it already."""
        local = dest.root / name
        if local.is_file() and sha256_of(local) == self.sha256[name]:
            return None
        if name not in entries:
            raise DamagedOutputs(f"{name} is missing")
        path = incoming / entries[name].md5
        if path.is_file() and sha256_of(path) == self.sha256[name]:  # of an earlier, interrupted call
            return path
        if self.files.download(entries[name], path) != self.sha256[name]:
            path.unlink()
            raise DamagedOutputs(f"{name} does not have the sha256 that its manifest lists")
        return path


def _find_slots(files: DriveClient, run_id: str, leg_id: str) -> list[DriveSlot]:
    """The consistent ones; Drive may hold a leg's folder, and each folder in it, several times under one name."""
    inside = files.list_files(files.find_folders(FOLDER, run_id, leg_id))
    folders = [entry for entry in inside if entry.is_folder and entry.name in SLOTS]
    children = files.list_files(folders)
    slots = (_load_slot(files, [entry for entry in children if entry.parent == folder.id]) for folder in folders)
    return [slot for slot in slots if slot and slot.state.get("leg") == leg_id]


def _load_slot(files: DriveClient, children: list[DriveFile]) -> DriveSlot | None:
    """None while it is being written, or where its manifest does not match its state."""
    entries = _newest_by_name([entry for entry in children if not entry.is_folder])
    folders = tuple(entry for entry in children if entry.is_folder)
    try:
        manifest, state = files.read_file(entries[_MANIFEST]), files.read_file(entries[_STATE])
        listed = json.loads(manifest)["files"]
        sha256 = {str(name): str(entry["sha256"]) for name, entry in listed.items()}
        parse_object(state.decode(), _STATE)
    except (http.ContentChanged, NotFound, LookupError, TypeError, AttributeError, ValueError, ContractError):
        return None
    is_consistent = sha256.get(_STATE) == hashlib.sha256(state).hexdigest()
    return DriveSlot(files, entries, folders, sha256, manifest, state) if is_consistent else None


def _newest_by_name(entries: list[DriveFile]) -> dict[str, DriveFile]:
    """`entries` come newest first; of several with one name the newest counts."""
    return {entry.name: entry for entry in reversed(entries)}


# ------------------------------------------------------------------------------------ the zips on Drive
@dataclass(frozen=True)
class ResultsZip:
    """One zip of results; one that cannot be inspected has no progress, and counts only where there is nothing else."""

    files: DriveClient
    file: DriveFile
    leg_id: str
    progress: _Progress = _NO_PROGRESS
    names: tuple[str, ...] = ()
    manifest: bytes = b""

    def download(self, dest: RunFolder, incoming: Path) -> None:
        """Checks the zip as untrusted; skips it where `dest` has all of it."""
        if self._is_collected(dest):
            return
        part, zipped = incoming / self.file.md5, incoming / results_name(self.leg_id)
        self.files.download(self.file, part)
        os.replace(part, zipped)
        unpacked = RunFolder(incoming / "run")
        try:
            import_results(zipped, self.leg_id, unpacked)
            paths = [path for path in unpacked.root.rglob("*") if path.is_file()]
            for path in sorted(paths, key=lambda path: path == unpacked.manifest):  # the manifest last
                artifacts.move_into_place(path, dest.root / path.relative_to(unpacked.root))
        finally:
            shutil.rmtree(incoming, ignore_errors=True)

    def _is_collected(self, dest: RunFolder) -> bool:
        if not self.manifest or not dest.manifest.is_file() or dest.manifest.read_bytes() != self.manifest:
            return False
        try:
            return not artifacts.read_artifacts(dest).unlisted and all(
                (dest.root / name).is_file() for name in self.names
            )
        except NotYet:
            return False


def _find_results(files: DriveClient, run_id: str, leg_id: str) -> list[ResultsZip]:
    """The leg's zips on Drive, the newest of several with one name."""
    entries = files.list_files(files.find_folders(FOLDER, run_id), results_name(leg_id))
    return [_inspect_zip(files, entry, leg_id) for entry in entries if not entry.is_folder][:_MAX_ZIPS]


def _inspect_zip(files: DriveClient, file: DriveFile, leg_id: str) -> ResultsZip:
    """By a few short reads: a zip has its directory at its end, and ours have the state at their beginning."""

    def read_entry(opened: zipfile.ZipFile, name: str) -> bytes:
        if opened.getinfo(name).file_size > _MAX_ENTRY_BYTES:
            raise zipfile.BadZipFile(f"{name} is too large")
        return opened.read(name)

    try:
        with zipfile.ZipFile(io.BufferedReader(DriveStream(files, file))) as opened:
            state = parse_object(read_entry(opened, _STATE).decode(), _STATE)
            manifest, names = read_entry(opened, _MANIFEST), tuple(opened.namelist())
    except (*_BAD_ZIP, ContractError):
        return ResultsZip(files, file, leg_id)
    progress = _progress(state) if state.get("leg") == leg_id else _NO_PROGRESS
    return ResultsZip(files, file, leg_id, progress, names, manifest)


# ---------------------------------------------------------------------------------- a downloaded zip
def import_results(zipped: Path, leg_id: str, dest: RunFolder) -> Artifacts:
    """Unpacks the results of `leg_id`, checks them as untrusted, and moves them into `dest`; repeatable.

    Raises:
        UsageError: there is no such file, or it holds another leg's results, or older ones than `dest`.
        MachineError: it is torn, hostile, or does not match its own manifest; nothing was imported.
    """
    if not zipped.is_file():
        raise UsageError(f"there is no file {zipped}", f"give the downloaded zip: --from {results_name(leg_id)}")
    incoming = dest.root.with_name(f".{dest.root.name}.{os.getpid()}.incoming")
    try:
        unpacked = archive.unpack_run(zipped, incoming)
        _check_leg_and_age(zipped, _load_state(unpacked), leg_id, dest)
        for path in sorted(path for path in incoming.rglob("*") if path.is_file()):
            artifacts.move_into_place(path, dest.root / path.relative_to(incoming))
    except ContractError as error:
        raise MachineError(f"nothing was imported: {error}", _DOWNLOAD_AGAIN) from None
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return artifacts.read_artifacts(dest)


def _check_leg_and_age(zipped: Path, state: Mapping[str, Any], leg_id: str, dest: RunFolder) -> None:
    if state.get("leg") != leg_id:
        raise UsageError(
            f"{zipped.name} holds the results of {state.get('leg')!r}, not of {leg_id}; nothing was imported",
            f"give the zip of this leg: --from {results_name(leg_id)}",
        )
    if dest.state.exists() and _progress(state)[:2] < _progress(_load_state(dest))[:2]:
        raise UsageError(
            f"{zipped.name} is from an earlier session than what was collected before; nothing was imported",
            "give the newest download: browsers number them, as in results (1).zip",
        )


def _load_state(folder: RunFolder) -> dict[str, Any]:
    """Raises ContractError where there is none."""
    try:
        return parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name)
    except (OSError, UnicodeDecodeError):
        raise ContractError(f"it has no readable {folder.state.name}") from None

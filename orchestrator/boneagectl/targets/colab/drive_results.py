"""The results that a session has put on Drive as one zip: looked into from afar, and brought where they are wanted."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer.contract import ContractError, RunFolder, parse_object
from boneagectl import artifacts
from boneagectl.errors import MachineError, NotYet
from boneagectl.targets.colab import results
from boneagectl.targets.colab.drive_files import DriveFile, DriveFiles, Seekable

NOTHING = (-1, 0.0)
_NAMES = RunFolder(Path())
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
        results.bring(zipped, self.leg_id, whole)
        paths = [path for path in whole.root.rglob("*") if path.is_file()]
        for path in sorted(paths, key=lambda path: path == whole.manifest):
            artifacts.put(path, dest.root / path.relative_to(whole.root))

    def _is_here(self, dest: RunFolder) -> bool:
        if not self.manifest or not dest.manifest.is_file() or dest.manifest.read_bytes() != self.manifest:
            return False
        try:
            return not artifacts.of(dest).unlisted and all((dest.root / one).is_file() for one in self.names)
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
            state = parse_object(_read(opened, _NAMES.state.name).decode(), _NAMES.state.name)
            manifest, names = _read(opened, _NAMES.manifest.name), tuple(opened.namelist())
    except (*_BROKEN, ContractError):
        return Results(files, file, leg_id)
    return Results(files, file, leg_id, reached(state) if state.get("leg") == leg_id else NOTHING, names, manifest)


def _read(opened: zipfile.ZipFile, name: str) -> bytes:
    if opened.getinfo(name).file_size > _SMALL_BYTES:
        raise zipfile.BadZipFile(f"{name} is too large")
    return opened.read(name)

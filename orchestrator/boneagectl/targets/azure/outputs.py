"""Brings what a job has written so far: each file once, streamed, checked by hash, never outside its folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from boneage_trainer.contract import RunFolder, sha256_of, write_atomic
from boneagectl import artifacts
from boneagectl.records import Artifacts
from boneagectl.targets.azure.blobs import Store

_INCOMING = ".incoming"


def bring(store: Store, folder: str, log: bytes, dest: RunFolder) -> Artifacts:
    """Downloads what is below `folder` into `dest`, with the log; what is here, and as listed, is not loaded again.

    Raises:
        NotYet: the job has written nothing.
        MachineError: a name points outside the folder. Unreachable: the store does not answer.
    """
    names = store.names(folder)
    for name in names:
        artifacts.check_name(name)
    _list_first(store, folder, names, dest)
    wanted, incoming = artifacts.listed(dest), dest.root / _INCOMING
    others = [name for name in names if name != dest.manifest.name]
    for name in (name for name in others if not _is_here(dest.root / name, wanted.get(name))):
        if store.fetch(folder + name, incoming / name):
            artifacts.put(incoming / name, dest.root / name)
    if log:
        write_atomic(dest.log, log)
    shutil.rmtree(incoming, ignore_errors=True)
    return artifacts.of(dest)


def bring_default(store: Store, folder: str, dest: Path) -> None:
    """What the job left in its folder ``outputs``, which our trainer does not use, below `dest`."""
    names = store.names(folder)
    for name in names:
        artifacts.check_name(name)
    for name in names:
        incoming = dest / _INCOMING / name
        if store.fetch(folder + name, incoming):
            artifacts.put(incoming, dest / name)
    shutil.rmtree(dest / _INCOMING, ignore_errors=True)


def _list_first(store: Store, folder: str, names: list[str], dest: RunFolder) -> None:
    """The leg's own list tells which files are here already."""
    if dest.manifest.name in names and (content := store.read(folder + dest.manifest.name)):
        write_atomic(dest.manifest, content)


def _is_here(path: Path, sha256: str | None) -> bool:
    return sha256 is not None and path.is_file() and sha256_of(path) == sha256

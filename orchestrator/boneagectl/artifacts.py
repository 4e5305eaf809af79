"""Brings a run folder's files into another folder, by name from the contract and checked by hash."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from boneage_trainer.contract import RunFolder, parse_object, sha256_of
from boneagectl.errors import NotYet
from boneagectl.records import Artifacts


def bring(source: RunFolder, dest: RunFolder) -> Artifacts:
    """Copies the files the contract names, each written to a temporary name and renamed.

    Raises:
        NotYet: the leg has written nothing.
    """
    names = [
        path.relative_to(source.root).as_posix()
        for path in (*source.listed(), source.manifest, source.log)
        if path.exists()
    ]
    if not names:
        raise NotYet(f"{source.root} holds nothing yet", "boneagectl watch")
    hashes = {name: _copy(source.root / name, dest.root / name) for name in names}
    listed = _listed_hashes(dest)
    unlisted = tuple(name for name, found in listed.items() if hashes.get(name) != found)
    return Artifacts(dest.root, hashes, unlisted)


def _copy(source: Path, dest: Path) -> str:
    """The sha256 of what arrived."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    temporary = dest.with_name(f".{dest.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, temporary)
        arrived = sha256_of(temporary)
        os.replace(temporary, dest)
    finally:
        temporary.unlink(missing_ok=True)
    return arrived


def _listed_hashes(folder: RunFolder) -> dict[str, str]:
    if not folder.manifest.exists():
        return {}
    files = parse_object(folder.manifest.read_text(), folder.manifest.name)["files"]
    return {name: entry["sha256"] for name, entry in files.items()}

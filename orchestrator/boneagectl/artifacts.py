"""Outputs of a leg: files named by the contract, verified by hash, never outside their folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from boneage_trainer.archive import pack_run
from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of, write_manifest
from boneagectl.errors import MachineError, NotYet
from boneagectl.models import Artifacts


def copy_outputs(source: RunFolder, dest: RunFolder) -> Artifacts:
    """Copies the files that the contract names, each to a temporary name that is then renamed.

    Raises:
        NotYet: the leg has written nothing.
    """
    names = [
        path.relative_to(source.root).as_posix()
        for path in (*source.manifest_files(), source.manifest, source.log)
        if path.exists()
    ]
    return read_artifacts(dest, {name: _copy(source.root / name, dest.root / name) for name in names})


def _copy(source: Path, dest: Path) -> str:
    """Returns the sha256 of the copy."""
    temporary = dest.with_name(f".{dest.name}.{os.getpid()}.tmp")
    dest.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, temporary)
        arrived = sha256_of(temporary)
        os.replace(temporary, dest)
    finally:
        temporary.unlink(missing_ok=True)
    return arrived


def read_artifacts(dest: RunFolder, known: Mapping[str, str] | None = None) -> Artifacts:
    """The outputs in `dest`, verified; only files whose sha256 is not `known` are read.

    Raises:
        NotYet: there are none. MachineError: the manifest names a file outside of `dest`.
    """
    known, listed = known or {}, read_manifest_hashes(dest)
    names = {path.relative_to(dest.root).as_posix() for path in (*dest.manifest_files(), dest.manifest, dest.log)
             if path.exists()} | {*listed, *known}  # fmt: skip
    files = (name for name in sorted(names) if (dest.root / name).is_file())
    hashes = {name: known.get(name) or sha256_of(dest.root / name) for name in files}
    if not hashes:
        raise NotYet("the leg has no outputs yet", "boneagectl watch")
    return Artifacts(dest.root, hashes, tuple(name for name, sha256 in listed.items() if hashes.get(name) != sha256))


def is_complete(folder: RunFolder) -> bool:
    """Whether `folder` holds every file that an ended leg has listed, by name and size."""
    try:
        state = parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name).get("state")
        files = parse_object(folder.manifest.read_text(encoding="utf-8"), folder.manifest.name)["files"]
        sizes = {folder.root / name: entry["bytes"] for name, entry in files.items()}
        return state not in (None, "running") and all(path.stat().st_size == size for path, size in sizes.items())
    except (OSError, ContractError, KeyError, TypeError):
        return False


def copy_checkpoint(source: Path, dest: Path) -> RunFolder:
    """Copies what a next leg needs; the model and its evaluation are created again."""
    before, copied = RunFolder(source), RunFolder(dest)
    for path in (before.last, before.best, before.metrics):
        if path.exists():
            copy = dest / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    return copied


def pack_checkpoint(source: Path, dest: Path) -> None:
    """As `copy_checkpoint`, into one zip with its own manifest."""
    with tempfile.TemporaryDirectory() as folder:
        copied = copy_checkpoint(source, Path(folder))
        write_manifest(copied)
        pack_run(copied, dest)


def read_manifest_hashes(folder: RunFolder) -> dict[str, str]:
    """sha256 by name from the leg's own manifest; empty without one."""
    if not folder.manifest.exists():
        return {}
    files = parse_object(folder.manifest.read_text(), folder.manifest.name)["files"]
    for name in files:
        check_name(name)
    return {name: entry["sha256"] for name, entry in files.items()}


def check_name(name: str) -> None:
    """Raises MachineError where a remote file name would lead out of its folder."""
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise MachineError(
            f"the leg left a file named {name!r}, which points outside its folder; nothing was downloaded",
            "inspect the run's page before you trust its outputs",
        )


def move_into_place(source: Path, dest: Path) -> None:
    """Moves a complete file to `dest`; a link there is replaced, not followed."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, dest)

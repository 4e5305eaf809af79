"""What a Kaggle session finds attached below ``/kaggle/input``: a data set, and the leg to go on from.

Kaggle mounts at ``datasets/OWNER/SLUG`` and ``notebooks/OWNER/SLUG``; at ``SLUG`` until 2025 and at times today.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, PackFolder, RunFolder

_DEPTH = 4
"""Folders below the input in which a mount is looked for; below them only images are."""
_KINDS = ("datasets", "notebooks", "kernels", "models")


# ------------------------------------------------------------------------------------------ mounts
def mount(inputs: Path, kind: str, name: str) -> Path:
    """The folder at which ``owner/slug`` is attached; `kind` is ``datasets`` or ``notebooks``.

    Raises:
        ContractError: it is not attached, or only another owner's of that slug is.
    """
    owner, _, slug = name.partition("/")
    for folder in (inputs / kind / owner / slug, inputs / slug):
        if slug and folder.is_dir():
            return folder
    found = [folder for folder in _folders(inputs, _DEPTH) if folder.name == slug]
    for wanted in (owner, ""):
        for folder in found:
            if _owner(inputs, folder) == wanted:
                return folder
    raise ContractError(_not_attached(inputs, kind, name, found))


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """Not rglob: that asks for each of thousands of images whether it is a folder."""
    for entry in _entries(root):
        if entry.is_dir():
            yield Path(entry.path)
            if depth > 1:
                yield from _folders(Path(entry.path), depth - 1)


def _entries(root: Path) -> list[os.DirEntry[str]]:
    return sorted(os.scandir(root), key=lambda entry: entry.name) if root.is_dir() else []


def _owner(inputs: Path, folder: Path) -> str:
    """Whose the mount is by its path; nothing where the path does not say."""
    above = folder.parent
    return "" if above == inputs or (above.parent == inputs and above.name in _KINDS) else above.name


def _not_attached(inputs: Path, kind: str, name: str, found: list[Path]) -> str:
    if found:
        others = ", ".join(f"{_owner(inputs, folder)}/{folder.name} at {folder}" for folder in found)
        return f"{name} is not attached, but another owner's is: {others}; attach {name}"
    there = ", ".join(str(path.relative_to(inputs)) for path in _folders(inputs, 3)) or "nothing"
    return f"{kind} {name} is not attached to this kernel (below {inputs}: {there[:500]}); attach it and start again"


# ------------------------------------------------------------------------------------------- images
def images(folder: Path, misfit: Callable[[dict[str, Any]], str]) -> tuple[Path, bool]:
    """The pack or the raw tree in `folder` or one level below, and whether it is a pack.

    `misfit` says of a pack's card why it is not wanted, or nothing.

    Raises:
        ContractError: neither is there, or no pack that is wanted.
    """
    places = [folder, *_folders(folder, depth=1)]
    packs = [PackFolder(place) for place in places if PackFolder(place).card.is_file()]
    reasons = [(pack.root, misfit(pack.read_card())) for pack in packs]
    for root, reason in reasons:
        if not reason:
            return root, True
    if reasons:
        raise ContractError("; ".join(f"pack {root} {reason}" for root, reason in reasons))
    for place in places:
        if any(entry.name.lower().endswith(".csv") for entry in _entries(place)):
            return place, False
    names = ", ".join(entry.name for entry in _entries(folder)[:20]) or "nothing"
    raise ContractError(f"{folder} holds neither a pack (pack.json) nor radiographs with their csv; it has {names}")


# -------------------------------------------------------------------------------------------- a leg
def earlier_leg(folder: Path, dest: Path) -> RunFolder:
    """The run folder in `folder`, unpacked into `dest` where it is a zip: the output of an earlier leg's kernel, or a
    data set made of a leg that ran elsewhere.

    Of a kernel that was killed, ``run/`` is left as it was at that instant: its manifest may be an epoch
    behind, so there the checkpoint's own checksums count, which the trainer verifies.

    Raises:
        ContractError: no run is there, it is damaged, or it has no checkpoint to go on from.
        OSError: the disk is full.
    """
    run = RunFolder(folder / "run")
    if zipped := next((path for name in ("run.zip", "run.bin") if (path := folder / name).is_file()), None):
        run = archive.unpack_run(zipped, dest)
    elif not run.root.is_dir():
        raise ContractError(f"{folder} has neither run.zip nor run/: that kernel left no training to go on from")
    if not run.last.is_file():
        missing = run.last.relative_to(run.root).as_posix()
        raise ContractError(f"the leg in {folder} has no {missing}: go on from one that finished an epoch")
    return run

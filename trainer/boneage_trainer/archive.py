"""A run folder as one zip, and back: fewer files than a download lists at a time, and none of them taken on trust."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of, writing_atomically

MAX_BYTES = 20 * 10**9
"""What Kaggle keeps of one session, so no run that came from there is larger."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for torn, encrypted and exotic archives."""


def pack_run(folder: RunFolder, archive: Path) -> None:
    """Writes the files of `folder` that its manifest covers, and the manifest, whole or not at all.

    Stored, not compressed: weights do not get smaller.

    Raises:
        OSError: the disk is full.
    """
    with writing_atomically(archive) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as made:
        for path in (*folder.listed(), folder.manifest):
            made.write(path, path.relative_to(folder.root).as_posix())


def unpack_run(archive: Path, dest: Path) -> RunFolder:
    """Unpacks `archive` into the new folder `dest` and checks each file against its manifest.

    Raises:
        ContractError: no archive, one that would write outside `dest` or more than 20 GB, or a file that
            is damaged or missing.
        OSError: the disk is full.
    """
    shutil.rmtree(dest, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = opened.infolist()
            _check_entries(archive, infos)
            opened.extractall(dest, infos)
    except _BROKEN as error:
        raise ContractError(f"{archive} cannot be unpacked: {error}") from None
    folder = RunFolder(dest)
    check_run(folder, archive)
    return folder


def _check_entries(archive: Path, infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        if reason := _suspect(info):
            raise ContractError(f"{archive} is not unpacked: it has {info.filename!r}, {reason}")
    if len({info.filename for info in infos}) < len(infos):
        raise ContractError(f"{archive} is not unpacked: it has the same name twice")
    if (total := sum(info.file_size for info in infos)) > MAX_BYTES:
        raise ContractError(f"{archive} is not unpacked: it would take {total / 1e9:,.0f} GB")


def _suspect(info: zipfile.ZipInfo) -> str:
    """Why an entry is none of a run folder's, or nothing."""
    name = PurePosixPath(info.filename)
    if name.is_absolute() or "\\" in info.filename or ":" in info.filename:
        return "an absolute name"
    if ".." in name.parts:
        return "a name that leads out of the folder"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "which is no file but a link or device"


def check_run(folder: RunFolder, named: Path) -> None:
    """Checks the files of `folder`; `named` is what a message calls it.

    Raises:
        ContractError: no manifest, or a file in it is missing or differs.
    """
    try:
        text = folder.manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ContractError(f"{named} has no readable {folder.manifest.name}") from None
    listed = parse_object(text, folder.manifest.name).get("files")
    if not isinstance(listed, dict):
        raise ContractError(f"{folder.manifest.name} of {named} lists no files")
    if wrong := [fault for name, entry in listed.items() if (fault := _fault(folder.root, name, entry))]:
        raise ContractError(f"{named} is damaged: {', '.join(wrong)}")


def _fault(root: Path, name: str, entry: object) -> str:
    path = root / name
    if not path.is_file():
        return f"{name} is missing"
    expected = entry.get("sha256") if isinstance(entry, dict) else None
    return "" if sha256_of(path) == expected else f"{name} has another sha256 than listed"

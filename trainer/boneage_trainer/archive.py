"""A run folder as one zip, and back: fewer files than a download lists at a time, and none of them taken on trust."""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from boneage_trainer.contract import ContractError, RunFolder, open_atomic, parse_object, sha256_of

MAX_BYTES = 20 * 10**9
"""What Kaggle keeps of one session, so no run that came from there is larger."""
MAX_FILES = 100
MAX_RATIO = 100
"""Weights hardly get smaller; csv and JSON do so tenfold, should somebody have packed them anew."""
_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK_BYTES = 1 << 20
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for torn, encrypted and exotic archives."""


def stored(entries: Iterable[tuple[str, bytes]]) -> bytes:
    """A zip of `entries` (name, content): sorted, dated alike and not compressed, so the same bytes on any machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as made:
        for name, data in sorted(entries):
            made.writestr(_info(name), data)
    return buffer.getvalue()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info


def pack_run(folder: RunFolder, archive: Path, with_log: bool = False) -> None:
    """Writes the files of `folder` that its manifest covers, and the manifest, whole or not at all.

    The log goes along `with_log`, where the target has no other way to bring it.

    Stored, not compressed: weights do not get smaller. The same files make the same bytes.

    Raises:
        OSError: the disk is full.
    """
    with open_atomic(archive) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as made:
        for path in (*folder.listed(), folder.manifest, *([folder.log] if with_log else [])):
            info = _info(path.relative_to(folder.root).as_posix())
            with open(path, "rb") as source, made.open(info, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)


def unpack_run(archive: Path, dest: Path) -> RunFolder:
    """Unpacks `archive` into the new folder `dest` and checks each file against its manifest.

    Raises:
        ContractError: no archive, one that would write outside `dest` or more than 20 GB, a file that is
            damaged, missing, or not in the manifest.
        OSError: the disk is full.
    """
    shutil.rmtree(dest, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as opened:
            infos = [info for info in opened.infolist() if not info.is_dir()]
            _check_entries(archive, opened.infolist())
            _extract(opened, infos, dest)
    except _BROKEN as error:
        raise ContractError(f"{archive} cannot be unpacked: {error}") from None
    folder = RunFolder(dest)
    check_run(folder, archive)
    known = {*_listed(folder, archive), folder.manifest.name, folder.log.name}
    if extra := [info.filename for info in infos if info.filename not in known]:
        raise ContractError(f"{archive} is not unpacked: {folder.manifest.name} does not list {', '.join(extra[:5])}")
    return folder


def _extract(opened: zipfile.ZipFile, infos: list[zipfile.ZipInfo], dest: Path) -> None:
    """Writes the files, and counts what really comes: what the headers say may be a lie."""
    left = min(MAX_BYTES, sum(info.file_size for info in infos))
    for info in infos:
        path = dest / info.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(info) as source, open(path, "xb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise zipfile.BadZipFile(f"{info.filename} is larger than it says")
                target.write(chunk)


def _check_entries(archive: Path, infos: list[zipfile.ZipInfo]) -> None:
    for info in infos:
        if reason := _suspect(info):
            raise ContractError(f"{archive} is not unpacked: it has {info.filename!r}, {reason}")
    if len({info.filename.casefold() for info in infos}) < len(infos):
        raise ContractError(f"{archive} is not unpacked: it has the same name twice")
    if len(infos) > MAX_FILES:
        raise ContractError(f"{archive} is not unpacked: it has {len(infos)} files, a run at most {MAX_FILES}")
    total, packed = sum(info.file_size for info in infos), archive.stat().st_size
    if sum(info.compress_size for info in infos) > packed:
        raise ContractError(f"{archive} is not unpacked: its files overlap")
    if total > MAX_RATIO * packed:
        raise ContractError(f"{archive} is not unpacked: {packed:,} bytes would become {total:,}")
    if total > MAX_BYTES:
        raise ContractError(f"{archive} is not unpacked: it would take {total / 1e9:,.0f} GB")


def _suspect(info: zipfile.ZipInfo) -> str:
    """Why an entry is none of a run folder's, or nothing."""
    name = PurePosixPath(info.filename)
    if not name.parts or name.is_absolute() or "\\" in info.filename or ":" in info.filename:
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
    listed = _listed(folder, named)
    if wrong := [fault for name, entry in listed.items() if (fault := _fault(folder.root, name, entry))]:
        raise ContractError(f"{named} is damaged: {', '.join(wrong)}")


def check_files(folder: RunFolder, paths: Iterable[Path]) -> None:
    """As `check_run`, for `paths` alone: files of `folder` which its manifest must name."""
    listed = _listed(folder, folder.root)
    names = [path.relative_to(folder.root).as_posix() for path in paths]
    if wrong := [fault for name in names if (fault := _fault(folder.root, name, listed.get(name)))]:
        raise ContractError(f"{folder.root} is damaged: {', '.join(wrong)}")


def _listed(folder: RunFolder, named: Path) -> dict[str, object]:
    try:
        text = folder.manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ContractError(f"{named} has no readable {folder.manifest.name}") from None
    listed = parse_object(text, folder.manifest.name).get("files")
    if not isinstance(listed, dict):
        raise ContractError(f"{folder.manifest.name} of {named} lists no files")
    return listed


def _fault(root: Path, name: str, entry: object) -> str:
    path = root / name
    if not path.is_file():
        return f"{name} is missing"
    expected = entry.get("sha256") if isinstance(entry, dict) else None
    return "" if sha256_of(path) == expected else f"{name} has another sha256 than listed"

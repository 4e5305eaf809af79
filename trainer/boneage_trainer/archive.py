"""A run folder as one zip, and back: one file to download, and every entry of it is checked."""

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
"""What Kaggle keeps of one session; no run is larger."""
MAX_FILES = 100
MAX_RATIO = 100
"""Uncompressed to compressed size: weights hardly get smaller, csv and JSON about tenfold."""
_DATE = (1980, 1, 1, 0, 0, 0)
_CHUNK_BYTES = 1 << 20
_LEVEL = 9
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What zipfile raises for torn, encrypted and unsupported archives."""


def zip_entries(entries: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of `entries` (name, content). Names, dates, permissions, order and level are fixed.

    With ``zipfile.ZIP_STORED`` the bytes are the same on every machine. Compressed, they depend on the interpreter's
    zlib too: the same interpreter makes the same bytes on every machine and in every process; another build of zlib
    may make others that unpack to the same entries.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zip_file:
        for name, data in sorted(entries):
            zip_file.writestr(_info(name), data, method, _LEVEL)
    return buffer.getvalue()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system, info.external_attr = 3, 0o644 << 16
    return info


def pack_run(folder: RunFolder, archive: Path, with_log: bool = False) -> None:
    """Writes the files of `folder` that its manifest covers, and the manifest, whole or not at all.

    `with_log` adds the log, for a target that cannot return it in another way. Entries are stored, not compressed,
    since weights do not get smaller; the same files make the same bytes.

    Raises:
        OSError: the disk is full.
    """
    with open_atomic(archive) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as zip_file:
        for path in (*folder.manifest_files(), folder.manifest, *([folder.log] if with_log else [])):
            info = _info(path.relative_to(folder.root).as_posix())
            with open(path, "rb") as source, zip_file.open(info, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)


def unpack_run(archive: Path, dest: Path) -> RunFolder:
    """Unpacks `archive` into the new folder `dest` and checks each file against its manifest.

    Raises:
        ContractError: not an archive, one that would write outside `dest` or more than 20 GB, or a file that is
            damaged, missing, or not in the manifest.
        OSError: the disk is full.
    """
    shutil.rmtree(dest, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as zip_file:
            _check_entries(archive, zip_file.infolist())
            infos = [info for info in zip_file.infolist() if not info.is_dir()]
            _extract(zip_file, infos, dest)
    except _BROKEN as error:
        raise ContractError(f"{archive} cannot be unpacked: {error}") from None
    folder = RunFolder(dest)
    check_run(folder, archive)
    known = {*_read_manifest(folder, archive), folder.manifest.name, folder.log.name}
    if extra := [info.filename for info in infos if info.filename not in known]:
        raise ContractError(f"{archive} is not unpacked: {folder.manifest.name} does not list {', '.join(extra[:5])}")
    return folder


def _extract(zip_file: zipfile.ZipFile, infos: list[zipfile.ZipInfo], dest: Path) -> None:
    """Writes the files, and counts the bytes that really come: sizes in the headers may be wrong."""
    left = min(MAX_BYTES, sum(info.file_size for info in infos))
    for info in infos:
        path = dest / info.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        with zip_file.open(info) as source, open(path, "xb") as target:
            while chunk := source.read(_CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise zipfile.BadZipFile(f"{info.filename} is larger than its header says")
                target.write(chunk)


def _check_entries(archive: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Raises ContractError for an entry that a run folder cannot have, or for more than one run can hold."""
    problems = [f"it has {info.filename!r}, {reason}" for info in infos if (reason := _entry_problem(info))]
    if len({info.filename.casefold() for info in infos}) < len(infos):
        problems.append("it has the same name twice")
    if len(infos) > MAX_FILES:
        problems.append(f"it has {len(infos)} files, a run at most {MAX_FILES}")
    total, packed = sum(info.file_size for info in infos), archive.stat().st_size
    if sum(info.compress_size for info in infos) > packed:
        problems.append("its files overlap")
    if total > MAX_RATIO * packed:
        problems.append(f"{packed:,} bytes would become {total:,}")
    if total > MAX_BYTES:
        problems.append(f"it would take {total / 1e9:,.0f} GB")
    if problems:
        raise ContractError(f"{archive} is not unpacked: {problems[0]}")


def _entry_problem(info: zipfile.ZipInfo) -> str:
    """Why an entry cannot belong to a run folder, or an empty string."""
    name = PurePosixPath(info.filename)
    if not name.parts or name.is_absolute() or "\\" in info.filename or ":" in info.filename:
        return "an absolute name"
    if ".." in name.parts:
        return "a name that leads out of the folder"
    kind = stat.S_IFMT(info.external_attr >> 16)
    return "" if kind in (0, stat.S_IFREG, stat.S_IFDIR) else "which is a link or device, not a file"


# --------------------------------------------------------------------------------------- manifest
def check_run(folder: RunFolder, label: Path) -> None:
    """Checks the files of `folder` against its manifest; messages call the folder `label`.

    Raises:
        ContractError: no manifest, or a file in it is missing or differs.
    """
    entries = _read_manifest(folder, label)
    problems = [_file_problem(folder.root / name, name, entry) for name, entry in entries.items()]
    if any(problems):
        raise ContractError(f"{label} is damaged: {', '.join(filter(None, problems))}")


def check_files(folder: RunFolder, paths: Iterable[Path]) -> None:
    """As `check_run`, for `paths` alone: files of `folder`, which its manifest must list."""
    entries = _read_manifest(folder, folder.root)
    names = [path.relative_to(folder.root).as_posix() for path in paths]
    problems = [_file_problem(folder.root / name, name, entries.get(name)) for name in names]
    if any(problems):
        raise ContractError(f"{folder.root} is damaged: {', '.join(filter(None, problems))}")


def _read_manifest(folder: RunFolder, label: Path) -> dict[str, object]:
    try:
        text = folder.manifest.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ContractError(f"{label} has no readable {folder.manifest.name}") from None
    entries = parse_object(text, folder.manifest.name).get("files")
    if not isinstance(entries, dict):
        raise ContractError(f"{folder.manifest.name} of {label} lists no files")
    return entries


def _file_problem(path: Path, name: str, entry: object) -> str:
    if not path.is_file():
        return f"{name} is missing"
    expected = entry.get("sha256") if isinstance(entry, dict) else None
    return "" if sha256_of(path) == expected else f"{name} has another sha256 than listed"

"""Brings what a session left: streamed to disk, resumed where it broke off, checked, and never outside its folder."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object, sha256_of, write_atomic
from boneagectl import units
from boneagectl.errors import MachineError, NotYet, Unreachable
from boneagectl.records import Artifacts
from boneagectl.targets.kaggle.api import PAUSES_S, TIMEOUT_S
from boneagectl.targets.kaggle.log import Log

ZIP = "run.zip"
LOOSE = "run/"
_PIECE = 1 << 20
_MOST_BYTES = 20 * 10**9
"""What /kaggle/working holds at most: no archive can honestly unpack to more."""
_INCOMING = ".incoming"

Files = list[tuple[str, str]]


def bring(files: Files, log: Log, dest: RunFolder) -> Artifacts:
    """Downloads the run folder among `files` (name, address) into `dest`, with the log.

    Raises:
        NotYet: there is nothing, not even a log.
        MachineError: a name points outside the folder, or what came does not match the leg's own list.
        Unreachable: the connection broke again and again; what came so far is kept and gone on with.
    """
    for name, _ in files:
        _check_name(name)
    incoming = dest.root / _INCOMING
    wanted = {name: url for name, url in files if name == ZIP or name.startswith(LOOSE)}
    if ZIP in wanted:
        found = unpacked(_download(wanted[ZIP], incoming / ZIP), log, dest)
    else:
        _write_log(log, dest)
        for name, url in wanted.items():
            _put(_download(url, incoming / name), dest.root / name.removeprefix(LOOSE))
        found = of(dest)
    shutil.rmtree(incoming, ignore_errors=True)
    return found


def unpacked(archive: Path, log: Log, dest: RunFolder) -> Artifacts:
    """The run folder in `archive`, all of it or nothing, each file as the leg's own list says.

    Raises:
        MachineError: the archive is damaged, hostile, or holds something else than its list says.
    """
    _unpack(archive, dest.root)
    _write_log(log, dest)
    return _checked(dest, whole=True)


def _write_log(log: Log, dest: RunFolder) -> None:
    if log.lines:
        write_atomic(dest.log, "".join(f"{line}\n" for line in log.lines))


def kept(log: Log, dest: RunFolder) -> Artifacts:
    """The log and the epochs' lines alone: what there is of a session that runs, or was deleted.

    Raises:
        NotYet: there is no line yet.
    """
    if not log.lines:
        raise NotYet("Kaggle shows no line of its log yet", "boneagectl watch")
    _write_log(log, dest)
    if log.metrics:
        write_atomic(dest.metrics, "".join(f"{json.dumps(line, sort_keys=True)}\n" for line in log.metrics))
    return _checked(dest, whole=False)


def is_whole(dest: RunFolder) -> bool:
    """Whether `dest` holds everything its manifest lists, of a leg that ended in order."""
    try:
        state = parse_object(dest.state.read_text(), dest.state.name)["state"]
        return state in ("complete", "paused") and dest.log.exists() and not _differing(dest)
    except (OSError, ValueError, KeyError):
        return False


def of(dest: RunFolder) -> Artifacts:
    return _checked(dest, whole=False)


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in path.parts[0]:
        raise MachineError(
            f"the kernel left a file named {name!r}, which points outside its folder; nothing was brought",
            "look at the kernel's page on Kaggle before you trust anything it left",
        )


# ---------------------------------------------------------------------------------------- network
def _download(url: str, path: Path) -> Path:
    """`url` in `path`; what a broken connection left is gone on with, and the tries count only without news."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tries = 0
    while tries <= len(PAUSES_S):
        before = path.stat().st_size if path.exists() else 0
        trouble = _piece(url, path, before)
        if not trouble:
            return path
        tries = 0 if path.exists() and path.stat().st_size > before else tries + 1
        time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
    raise Unreachable(f"{path.name} broke off: {trouble}", "boneagectl collect goes on where it stopped")


def _piece(url: str, path: Path, start: int) -> str:
    """Downloads what is missing from `start` on; why it broke off, or nothing."""
    import requests
    import urllib3

    ask = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with requests.get(url, headers=ask, stream=True, timeout=TIMEOUT_S, auth=_no_auth) as answer:
            if answer.status_code == 416:  # nothing is missing
                return ""
            answer.raise_for_status()
            _need_room(path, int(answer.headers.get("Content-Length", 0)))
            with open(path, "ab" if answer.status_code == 206 else "wb") as stream:
                shutil.copyfileobj(answer.raw, stream, _PIECE)
        return ""
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _no_auth(request: Any) -> Any:
    """The addresses are signed; without this, requests would add what it finds in ~/.netrc."""
    return request


def _need_room(path: Path, count: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if count > free:
        raise MachineError(
            f"{path.name} has {units.format_bytes(count)}, the disk {units.format_bytes(free)} free", "free some"
        )


# ------------------------------------------------------------------------------------------- disk
def _unpack(archive: Path, dest: Path) -> None:
    """All of `archive`, or none of it."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = list(_safe_entries(opened))
            place = archive.parent / "unpacked"
            for entry in entries:
                opened.extract(entry, place)
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        archive.unlink(missing_ok=True)
        raise MachineError(f"{archive.name} came damaged: {error}", "boneagectl collect loads it anew") from None
    for entry in entries:
        _put(place / entry.filename, dest / entry.filename.removeprefix(LOOSE))


def _safe_entries(opened: zipfile.ZipFile) -> Iterator[zipfile.ZipInfo]:
    entries = [entry for entry in opened.infolist() if not entry.is_dir()]
    if sum(entry.file_size for entry in entries) > _MOST_BYTES:
        raise MachineError(f"{ZIP} would unpack to more than {units.format_bytes(_MOST_BYTES)}; nothing was unpacked")
    for entry in entries:
        _check_name(entry.filename)
        if entry.external_attr >> 28 == 0xA:
            raise MachineError(f"{ZIP} holds a link, {entry.filename!r}; nothing was unpacked")
        yield entry


def _put(source: Path, dest: Path) -> None:
    """Moves a file that came whole to its place; a link somebody left there is replaced, not followed."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, dest)


def _checked(dest: RunFolder, whole: bool) -> Artifacts:
    """What `dest` holds now; where the leg ended in order, all of it must match the leg's own list."""
    differing = _differing(dest)
    if whole and differing:
        raise MachineError(
            f"{', '.join(sorted(differing))} came damaged: its sha256 is not the one the leg listed",
            "boneagectl collect loads it anew",
        )
    names = {path.relative_to(dest.root).as_posix() for path in (*dest.listed(), dest.manifest, dest.log)
             if path.exists()} | set(_listed(dest))  # fmt: skip
    hashes = {name: sha256_of(dest.root / name) for name in sorted(names) if (dest.root / name).is_file()}
    if not hashes:
        raise NotYet("the session left nothing", "boneagectl logs")
    return Artifacts(dest.root, hashes, tuple(differing))


def _differing(dest: RunFolder) -> list[str]:
    return [name for name, sha256 in _listed(dest).items() if _sha256_or_none(dest.root / name) != sha256]


def _sha256_or_none(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None


def _listed(dest: RunFolder) -> dict[str, str]:
    if not dest.manifest.exists():
        return {}
    files = parse_object(dest.manifest.read_text(), dest.manifest.name)["files"]
    for name in files:
        _check_name(name)
    return {name: entry["sha256"] for name, entry in files.items()}

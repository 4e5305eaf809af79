"""What every target's wire needs: how long an answer asks to wait, and an error in one line."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from typing import Any

from boneagectl import units
from boneagectl.errors import MachineError, Unreachable

PAUSES_S = (0.5, 2.0)
TIMEOUT_S = (10, 60)


def retry_after_s(response: Any) -> float | None:
    """Seconds of the Retry-After header; None where there is none, or a date."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None


def error_text(error: Exception) -> str:
    """The error's kind and text, cut to what a message can carry."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


# == download: Files from signed addresses: streamed to disk, hashed as they come, gone on with where they broke off.

_PIECE = 1 << 20


class _Part:
    """A file that comes in pieces, with the sha256 of what is there."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.size, self.digest = path, 0, hashlib.sha256()
        self._stream = open(path, "ab+")  # noqa: SIM115 - it stays open until `close`
        self._stream.seek(0)
        while piece := self._stream.read(_PIECE):
            self._count(piece)

    def restart(self) -> None:
        self._stream.truncate(0)
        self.size, self.digest = 0, hashlib.sha256()

    def write(self, piece: bytes) -> None:
        self._stream.write(piece)
        self._count(piece)

    def close(self) -> None:
        self._stream.close()

    def _count(self, piece: bytes) -> None:
        self.digest.update(piece)
        self.size += len(piece)


def session() -> Any:
    """One connection for many files. The addresses are signed: without an `auth` that adds nothing, requests
    would send along what it finds in ~/.netrc."""
    import requests

    session = requests.Session()
    session.auth = lambda request: request
    session.headers["Accept-Encoding"] = "identity"
    return session


def fetch(session: Any, url: str, path: Path) -> str:
    """Brings `url` into `path` and returns its sha256; tries count only while nothing comes.

    Raises:
        Unreachable: it broke off again and again; what came is kept, and the next call goes on from there.
        MachineError: the disk is too small.
    """
    part, tries, trouble = _Part(path), 0, ""
    try:
        while tries <= len(PAUSES_S):
            before = part.size
            trouble = _go_on(session, url, part)
            if not trouble:
                return part.digest.hexdigest()
            tries = 0 if part.size > before else tries + 1
            time.sleep(PAUSES_S[min(tries, len(PAUSES_S) - 1)])
    finally:
        part.close()
    raise Unreachable(f"{path.name} broke off: {trouble}", "boneagectl collect goes on where it stopped")


def _go_on(session: Any, url: str, part: _Part) -> str:
    """Brings what is missing; why it broke off, or nothing."""
    import requests
    import urllib3

    ask = {"Range": f"bytes={part.size}-"} if part.size else {}
    try:
        with session.get(url, headers=ask, stream=True, timeout=TIMEOUT_S) as answer:
            if answer.status_code == 416:  # nothing is missing
                return ""
            answer.raise_for_status()
            if answer.status_code != 206:
                part.restart()
            _need_room(part.path, int(answer.headers.get("Content-Length", 0)))
            shutil.copyfileobj(answer.raw, part, _PIECE)
        return ""
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        return error_text(error)


def _need_room(path: Path, count: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if count > free:
        raise MachineError(
            f"{path.name} has {units.format_bytes(count)}, the disk {units.format_bytes(free)} free", "free some"
        )

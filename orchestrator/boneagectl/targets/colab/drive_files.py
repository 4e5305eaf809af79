"""The user's Drive, read only: folders by their path, files whole and by their checksum.

Drive lets several files and folders have one name, and a mount that lost its connection makes such twins. So a path
leads to all folders that are called so, and of files of one name the newest counts.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from boneagectl import units
from boneagectl.errors import MachineError, Unreachable
from boneagectl.targets.answers import words
from boneagectl.targets.colab import drive_rest
from boneagectl.targets.colab.drive_rest import LATER, Changed, Rest

_FOLDER = "application/vnd.google-apps.folder"
_FIELDS = "nextPageToken,files(id,name,mimeType,parents,size,md5Checksum,modifiedTime)"
_SMALL_BYTES = 1 << 25
_PIECE_BYTES = 1 << 16
"""What is lost at most where a connection breaks."""
_MOST_PAGES = 100
_MD5 = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class DriveFile:
    """A folder, or a file with bytes of its own; `md5` is empty for folders."""

    id: str
    name: str
    parent: str
    size: int
    md5: str
    modified: str

    @property
    def is_folder(self) -> bool:
        return not self.md5


class DriveFiles:
    """`session` is one of `google_signin.session`, or another that signs what it sends."""

    def __init__(self, session: Any) -> None:
        self._rest = Rest(session)

    # ------------------------------------------------------------------------------------- lists
    def folders(self, *path: str) -> list[DriveFile]:
        """All folders at this path below My Drive: none, one, or twins."""
        inside = ["root"]
        found: list[DriveFile] = []
        for name in path:
            asked = f"{_in(inside)} and name = {_quoted(name)} and mimeType = '{_FOLDER}'"
            found = self._found(asked, name) if inside else []
            inside = [folder.id for folder in found]
        return found

    def listed(self, folders: Sequence[DriveFile], name: str = "") -> list[DriveFile]:
        """What is in `folders`, of that `name` where there is one, newest first.

        Shortcuts and Google's own documents have no bytes to bring, and are left out.
        """
        if not folders:
            return []
        which = f" and name = {_quoted(name)}" if name else ""
        return self._found(_in([folder.id for folder in folders]) + which, folders[0].name)

    def _found(self, asked: str, what: str) -> list[DriveFile]:
        found = [made for said in self._pages(f"{asked} and trashed = false", what) if (made := _entry(said))]
        return sorted(found, key=lambda one: one.modified, reverse=True)

    def _pages(self, asked: str, what: str) -> Iterator[dict[str, Any]]:
        query: dict[str, Any] = {"q": asked, "fields": _FIELDS, "pageSize": 1000}
        for _ in range(_MOST_PAGES):
            said = self._rest.get("files", query, what).json()
            yield from said.get("files", [])
            if not said.get("nextPageToken"):
                return
            query["pageToken"] = said["nextPageToken"]
        raise MachineError(f"the folder {what} on Drive has too many files", "move what is not boneagectl's elsewhere")

    # ------------------------------------------------------------------------------------- bytes
    def read(self, file: DriveFile) -> bytes:
        """A whole small file.

        Raises:
            Missing, Changed: it is being replaced. MachineError: it is not small.
        """
        if file.size > _SMALL_BYTES:
            raise MachineError(f"{file.name} on Drive has {units.format_bytes(file.size)}, far too many for its kind")
        content = self.part(file, 0, file.size)
        if _md5_of(io.BytesIO(content)) != file.md5:
            raise _changed(file)
        return content

    def part(self, file: DriveFile, first: int, count: int) -> bytes:
        """`count` bytes from `first` on, or fewer where it ends; again after a broken connection."""
        content, tries, last = b"", 0, min(first + count, file.size) - 1
        while first + len(content) <= last:
            with self._open(file, first + len(content), last) as answer:
                piece, trouble = _read(answer, last + 1 - first - len(content))
            content += piece
            tries = 0 if piece else tries + 1
            _pause(file, tries, trouble)
        return content

    def fetch(self, file: DriveFile, path: Path) -> None:
        """Brings a file to `path`; goes on with what is there, from a call before too, and checks its md5.

        Raises:
            Unreachable: it broke off again and again; what came is kept. Missing, Changed: it is being replaced.
            MachineError: the disk is too small.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        tries = 0
        while (have := path.stat().st_size) < file.size:
            _need_room(path, file.size - have)
            trouble = self._go_on(file, path, have)
            tries = 0 if path.stat().st_size > have else tries + 1
            _pause(file, tries, trouble)
        with open(path, "rb") as stream:
            is_whole = _md5_of(stream) == file.md5
        if not is_whole:
            path.unlink()
            raise _changed(file)

    def _go_on(self, file: DriveFile, path: Path, have: int) -> str:
        """Appends what is missing; why it broke off, or nothing."""
        import requests
        import urllib3

        with self._open(file, have, None) as answer, open(path, "ab") as stream:
            try:
                shutil.copyfileobj(answer.raw, stream, _PIECE_BYTES)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                return words(error)
        return ""

    def _open(self, file: DriveFile, first: int, last: int | None) -> Any:
        """The answer with bytes from `first` on. Where Drive sends all of them, they are another file's place."""
        query = {"alt": "media"}
        answer = self._rest.get(f"files/{quote(file.id, safe='')}", query, file.name, first, last)
        if first and answer.status_code != 206:
            answer.close()
            raise Unreachable(f"{file.name}: Drive does not go on where it stopped", LATER)
        return answer


class Seekable(io.RawIOBase):
    """A file on Drive as a stream that can be moved in, for who reads a little of much; no block comes twice."""

    def __init__(self, files: DriveFiles, file: DriveFile) -> None:
        self._files, self._file, self._at = files, file, 0
        self._blocks: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise ValueError("before the beginning")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        number, skip = divmod(self._at, _PIECE_BYTES)
        if number not in self._blocks:
            self._blocks[number] = self._files.part(self._file, number * _PIECE_BYTES, _PIECE_BYTES)
        piece = self._blocks[number][skip : skip + len(buffer)]
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


def _read(answer: Any, count: int) -> tuple[bytes, str]:
    """At most `count` bytes, as many as came, and why no more did."""
    import requests
    import urllib3

    into = io.BytesIO()
    try:
        while into.tell() < count and (piece := answer.raw.read(min(_PIECE_BYTES, count - into.tell()))):
            into.write(piece)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        return into.getvalue(), words(error)
    return into.getvalue(), ""


def _pause(file: DriveFile, tries: int, trouble: str) -> None:
    """Tries count only while nothing comes."""
    if tries > len(drive_rest.PAUSES_S):
        raise Unreachable(f"{file.name} broke off: {trouble}", "boneagectl collect goes on where it stopped")
    if tries:
        time.sleep(drive_rest.PAUSES_S[tries - 1])


def _need_room(path: Path, count: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if count > free:
        raise MachineError(
            f"{units.format_bytes(count)} are to come, the disk has {units.format_bytes(free)} free", "free some"
        )


def _entry(said: dict[str, Any]) -> DriveFile | None:
    md5, is_folder = str(said.get("md5Checksum", "")), said.get("mimeType") == _FOLDER
    is_google_s = str(said.get("mimeType", "")).startswith("application/vnd.google-apps.")
    if not is_folder and (is_google_s or not _MD5.fullmatch(md5)):
        return None
    parent, size = (said.get("parents") or [""])[0], int(said.get("size") or 0)
    return DriveFile(said["id"], said["name"], parent, size, "" if is_folder else md5, said.get("modifiedTime", ""))


def _in(parents: Sequence[str]) -> str:
    return f"({' or '.join(f'{_quoted(parent)} in parents' for parent in parents)})"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _md5_of(stream: Any) -> str:
    return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _changed(file: DriveFile) -> Changed:
    return Changed(f"{file.name} on Drive is not what it was listed as: the notebook is writing", LATER)

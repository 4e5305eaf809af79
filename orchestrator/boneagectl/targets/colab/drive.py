"""The user's Drive, read only: folders by their path, files whole and by their checksum.

Drive lets several files and folders have one name, and a mount that lost its connection makes such twins. So a path
leads to all folders that are called so, and of files of one name the newest counts.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from boneage_trainer.contract import ContractError, parse_object
from boneagectl import units
from boneagectl.errors import BoneagectlError, LimitRefused, MachineError, NotFound, Unreachable
from boneagectl.targets.http import error_text, retry_after_s

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
                return error_text(error)
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
        return into.getvalue(), error_text(error)
    return into.getvalue(), ""


def _pause(file: DriveFile, tries: int, trouble: str) -> None:
    """Tries count only while nothing comes."""
    if tries > len(PAUSES_S):
        raise Unreachable(f"{file.name} broke off: {trouble}", "boneagectl collect goes on where it stopped")
    if tries:
        time.sleep(PAUSES_S[tries - 1])


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


# == drive_rest: Google Drive's API v3 by plain REST, GET alone: further tries, and failures in words.

HOST = "https://www.googleapis.com/drive/v3"
TIMEOUT_S = (10.0, 60.0)
PAUSES_S = (1.0, 4.0, 15.0)
LATER = "try again in some minutes"
_LONGEST_PAUSE_S = 60.0
_AGAIN = (408, 429, 500, 502, 503, 504)
_TOO_FAST = {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"}
_USED_UP = {"dailyLimitExceeded", "quotaExceeded", "downloadQuotaExceeded", "storageQuotaExceeded"}
_OFF = {"accessNotConfigured", "SERVICE_DISABLED"}
_NARROW = {"insufficientPermissions", "insufficientScope", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}


class Changed(Unreachable):
    """The file is not what it was when it was listed: the notebook is writing."""


class Rest:
    """`session` signs what it sends, and renews its token once where that is refused."""

    def __init__(self, session: Any) -> None:
        self._http = session

    def get(self, path: str, query: Mapping[str, Any], what: str, first: int = 0, last: int | None = None) -> Any:
        """The answer; of a file's bytes, only those from `first` to `last`, and not read yet.

        Raises:
            Missing, Changed. Unreachable: no answer, or one that asks for patience, after several tries.
            LimitRefused: a quota is used up. MachineError: it is refused for good.
        """
        for pause_s in (*PAUSES_S, None):
            trouble, wait_s = self._once(path, query, what, _range(first, last))
            if not isinstance(trouble, BoneagectlError):
                return trouble
            if pause_s is None or not isinstance(trouble, Unreachable) or isinstance(trouble, Changed):
                raise trouble
            time.sleep(min(_LONGEST_PAUSE_S, wait_s or pause_s))
        raise AssertionError("the last try returns or raises")

    def _once(self, path: str, query: Mapping[str, Any], what: str, head: dict[str, str]) -> tuple[Any, float | None]:
        """The answer, or what went wrong, and how long Google asks to wait."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        is_media = query.get("alt") == "media"
        try:
            answer = self._http.get(f"{HOST}/{path}", params=query, headers=head, timeout=TIMEOUT_S, stream=is_media)
            if answer.ok and not is_media:
                answer.json()  # a torn answer is none
        except GoogleAuthError as error:
            return in_words(error), None
        except (requests.RequestException, ValueError) as error:
            return Unreachable(f"{what}: Drive cannot be reached ({error_text(error)})", LATER), None
        return (answer, None) if answer.ok else (_translated(what, answer), retry_after_s(answer))


def _range(first: int, last: int | None) -> dict[str, str]:
    """Asked for as it is: a part of something compressed would be of no use."""
    part = {"Range": f"bytes={first}-{'' if last is None else last}"} if first or last is not None else {}
    return {"Accept-Encoding": "identity", **part}


def _translated(what: str, answer: Any) -> BoneagectlError:
    status, (reasons, text) = answer.status_code, _error_of(answer)
    said = f"{what}: Drive answered {status} {', '.join(reasons)}: {text}"
    if status == 404:
        return NotFound(f"{what} is not on Drive (any more)", "is it the same Google account?")
    if status == 416:
        return Changed(said, LATER)
    if status in _AGAIN or reasons & _TOO_FAST:
        return Unreachable(said, LATER)
    return _refused(status, reasons, said)


def _refused(status: int, reasons: Set[str], said: str) -> BoneagectlError:
    if reasons & _USED_UP:
        return LimitRefused(said, "wait until tomorrow, or take the zip in a browser: collect RUN --from ZIP")
    if reasons & _OFF:
        way = "gcloud services enable drive.googleapis.com --project=PROJECT, with the project of your OAuth client"
        return MachineError(f"the Drive API is not enabled in the project of this login; {said}", way)
    if reasons & _NARROW:
        return may_not_read()
    if status == 401:
        return MachineError(f"Google does not accept the login; {said}", LOGIN)
    return MachineError(said, "look at the file in a browser: https://drive.google.com")


def _error_of(answer: Any) -> tuple[Set[str], str]:
    """Google's reasons, of its older and its newer kind, in their order, and its words."""
    try:
        said = answer.json()["error"]
        told = [*said.get("errors", []), *said.get("details", [])]
        reasons = dict.fromkeys(str(one["reason"]) for one in told if "reason" in one)
        return reasons.keys(), " ".join(str(said.get("message", "")).split())[:200]
    except (ValueError, LookupError, TypeError, AttributeError):
        return set(), str(answer.reason or "")


# == google_signin: Who may read the user's Drive: the login that Google's own tools keep, with a token that reads

SCOPE = "https://www.googleapis.com/auth/drive.readonly"
LOGIN = (
    "gcloud auth application-default login --client-id-file=client.json "
    f"--scopes=openid,https://www.googleapis.com/auth/cloud-platform,{SCOPE}"
)
"""``client.json`` is the user's own OAuth client, downloaded from Google's console."""
WITHOUT = "or without any login, from the zip that the notebook offers: boneagectl collect RUN --from ZIP"
REVOKE = (
    "to withdraw it: gcloud auth application-default revoke, or https://myaccount.google.com/permissions; "
    "boneagectl keeps no token of its own"
)
WEEKLY = "what a client in testing was granted ends after a week"
_VARIABLE = "GOOGLE_APPLICATION_CREDENTIALS"
_USER = "authorized_user"


def session() -> Any:
    """A session of requests with the user's login. Nothing is asked of anybody yet.

    Raises:
        MachineError: nobody is signed in, as a user with a Drive, or google-auth is not installed.
    """
    try:
        from google.auth.transport.requests import AuthorizedSession
    except ImportError as error:
        raise MachineError(f"reading Drive needs google-auth: {error}", "pip install 'boneagectl[colab]'") from None
    made = AuthorizedSession(_credentials(file()), max_refresh_attempts=1)
    made.auth = lambda request: request  # else requests would put what it finds in ~/.netrc in the token's place
    return made


def file() -> Path:
    """Where Application Default Credentials are, whether or not they are."""
    if named := os.environ.get(_VARIABLE):
        return Path(named)
    if config := os.environ.get("CLOUDSDK_CONFIG"):
        return Path(config) / "application_default_credentials.json"
    usual = Path(os.environ.get("APPDATA", "")) if os.name == "nt" else Path.home() / ".config"
    return usual / "gcloud" / "application_default_credentials.json"


def _credentials(path: Path) -> Any:
    """Read from the file alone: google.auth.default() would also start gcloud, and wait for a cloud's metadata."""
    from google.oauth2.credentials import Credentials

    kind = _kind(path)
    if kind != _USER:
        raise MachineError(f"{path} holds a login of the kind {kind!r}, which has no Drive of yours", LOGIN)
    try:
        found = Credentials.from_authorized_user_file(str(path), scopes=[SCOPE])
    except (ValueError, OSError) as error:
        raise MachineError(f"{path} is no login: {error_text(error)}", LOGIN) from None
    found.token = None  # one that was kept may open more than Drive
    return found.with_quota_project_from_environment()


def _kind(path: Path) -> str:
    try:
        said = parse_object(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise MachineError(f"nobody is signed in to Google: there is no {path}", f"{LOGIN}; {WITHOUT}") from None
    except (OSError, UnicodeDecodeError, ContractError) as error:
        raise MachineError(f"{path} is no login: {error_text(error)}", LOGIN) from None
    return str(said.get("type", ""))


def in_words(error: Any) -> MachineError:
    """What google-auth could not do. Its text has what Google answered, and never a token."""
    from google.auth.exceptions import TransportError

    said = " ".join(str(error.args[0] if error.args else type(error).__name__).split())[:160]
    if isinstance(error, TransportError) or error.retryable:
        return Unreachable(f"Google's sign-in cannot be reached: {said}", "try again in some minutes")
    if "invalid_scope" in said:
        return may_not_read()
    return MachineError(f"Google does not accept the login any more: {said}", f"{LOGIN}; {WEEKLY}")


def may_not_read() -> MachineError:
    return MachineError(f"this Google login may not read Drive: it lacks {SCOPE}", LOGIN)

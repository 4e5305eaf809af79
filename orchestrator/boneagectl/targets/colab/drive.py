"""The user's Drive through its API v3, read-only: the sign-in, folders by their path, and files checked by their md5.

Drive allows several files and folders of one name, and a mount that lost its connection creates such duplicates.
Therefore a path leads to all folders of that name, and of files with one name the newest counts.
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
from boneagectl.errors import (
    BoneagectlError,
    LimitRefused,
    MachineError,
    NotFound,
    NotSignedIn,
    ProviderRefused,
    RemoteError,
    Unreachable,
)
from boneagectl.targets.http import error_text, retry_after_s

SCOPE = "https://www.googleapis.com/auth/drive.readonly"
LOGIN = (
    "gcloud auth application-default login --client-id-file=client.json "
    f"--scopes=openid,https://www.googleapis.com/auth/cloud-platform,{SCOPE}"
)
"""``client.json`` is the user's own OAuth client, downloaded from Google's console."""
WITHOUT = "or without a sign-in, from the zip that the notebook offers: boneagectl collect RUN --from ZIP"
REVOKE = (
    "to revoke it: gcloud auth application-default revoke, or https://myaccount.google.com/permissions; "
    "boneagectl stores no token"
)
HOST = "https://www.googleapis.com/drive/v3"
TIMEOUT_S = (10.0, 60.0)
PAUSES_S = (1.0, 4.0, 15.0)
LATER = "try again in some minutes"

_FOLDER_TYPE = "application/vnd.google-apps.folder"
_FIELDS = "nextPageToken,files(id,name,mimeType,parents,size,md5Checksum,modifiedTime)"
_SMALL_FILE_BYTES = 1 << 25
_PIECE_BYTES = 1 << 16
"""The most that a broken connection loses."""
_MAX_PAGES = 100
_MD5 = re.compile(r"[0-9a-f]{32}")
_LONGEST_PAUSE_S = 60.0
_RETRY_STATUSES = (408, 429, 500, 502, 503, 504)
_TOO_FAST = {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"}
_USED_UP = {"dailyLimitExceeded", "quotaExceeded", "downloadQuotaExceeded", "storageQuotaExceeded"}
_API_OFF = {"accessNotConfigured", "SERVICE_DISABLED"}
_NO_SCOPE = {"insufficientPermissions", "insufficientScope", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}


class DriveFileChanged(Unreachable):
    """The file is not the one that was listed: the notebook is replacing it."""


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


# ---------------------------------------------------------------------------------------- the sign-in
def open_session() -> Any:
    """A requests session with the user's Google sign-in. Sends nothing yet.

    Raises:
        NotSignedIn: there is no sign-in of a user with a Drive. MachineError: google-auth is not installed.
    """
    try:
        from google.auth.transport.requests import AuthorizedSession
    except ImportError as error:
        raise MachineError(f"reading Drive needs google-auth: {error}", "pip install 'boneagectl[colab]'") from None
    session = AuthorizedSession(_load_credentials(credentials_path()), max_refresh_attempts=1)
    session.auth = lambda request: request  # otherwise requests puts what it finds in ~/.netrc in the token's place
    return session


def credentials_path() -> Path:
    """Where Application Default Credentials are stored, whether or not the file exists."""
    if path := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return Path(path)
    if config := os.environ.get("CLOUDSDK_CONFIG"):
        return Path(config) / "application_default_credentials.json"
    usual = Path(os.environ.get("APPDATA", "")) if os.name == "nt" else Path.home() / ".config"
    return usual / "gcloud" / "application_default_credentials.json"


def _load_credentials(path: Path) -> Any:
    """Reads the file only: google.auth.default() would also start gcloud, and wait for a cloud's metadata server."""
    from google.oauth2.credentials import Credentials

    try:
        kind = str(parse_object(path.read_text(encoding="utf-8"), str(path)).get("type", ""))
        if kind != "authorized_user":
            raise NotSignedIn(f"{path} holds a {kind!r} sign-in, which has no Drive of yours", LOGIN)
        credentials = Credentials.from_authorized_user_file(str(path), scopes=[SCOPE])
    except FileNotFoundError:
        raise NotSignedIn(f"not signed in to Google: {path} does not exist", f"{LOGIN}; {WITHOUT}") from None
    except (OSError, ValueError, ContractError) as error:
        raise NotSignedIn(f"{path} is no valid sign-in: {error_text(error)}", LOGIN) from None
    credentials.token = None  # a stored token may have a wider scope than Drive
    return credentials.with_quota_project_from_environment()


def _sign_in_error(error: Any) -> RemoteError:
    """For an error of google-auth. Its text has Google's answer, and never a token."""
    from google.auth.exceptions import TransportError

    text = " ".join(str(error.args[0] if error.args else type(error).__name__).split())[:160]
    if isinstance(error, TransportError) or error.retryable:
        return Unreachable(f"Google's sign-in server cannot be reached: {text}", LATER)
    if "invalid_scope" in text:
        return _scope_error()
    weekly = "a sign-in through an OAuth client in testing expires after a week"
    return NotSignedIn(f"Google rejected the sign-in: {text}", f"{LOGIN}; {weekly}")


def _scope_error() -> NotSignedIn:
    return NotSignedIn(f"this Google sign-in may not read Drive: it lacks the scope {SCOPE}", LOGIN)


# ------------------------------------------------------------------------------------------ the client
class DriveClient:
    """`session` is one of `open_session`, or another that signs its requests and renews its token once after a 401."""

    def __init__(self, session: Any) -> None:
        self._session = session

    # ------------------------------------------------------------------------------------- lists
    def find_folders(self, *path: str) -> list[DriveFile]:
        """All folders at this path below My Drive: none, one, or duplicates."""
        parents = ["root"]
        folders: list[DriveFile] = []
        for name in path:
            query = f"{_in_parents(parents)} and name = {_quoted(name)} and mimeType = '{_FOLDER_TYPE}'"
            folders = self._search(query, name) if parents else []
            parents = [folder.id for folder in folders]
        return folders

    def list_files(self, folders: Sequence[DriveFile], name: str = "") -> list[DriveFile]:
        """The entries of `folders`, of that `name` if given, newest first.

        Shortcuts and Google's own documents have no bytes to download, and are left out.
        """
        if not folders:
            return []
        condition = f" and name = {_quoted(name)}" if name else ""
        return self._search(_in_parents([folder.id for folder in folders]) + condition, folders[0].name)

    def _search(self, query: str, what: str) -> list[DriveFile]:
        answers = self._pages(f"{query} and trashed = false", what)
        entries = [entry for answer in answers if (entry := _drive_file(answer))]
        return sorted(entries, key=lambda entry: entry.modified, reverse=True)

    def _pages(self, query: str, what: str) -> Iterator[dict[str, Any]]:
        parameters: dict[str, Any] = {"q": query, "fields": _FIELDS, "pageSize": 1000}
        for _ in range(_MAX_PAGES):
            page = self._get("files", parameters, what).json()
            yield from page.get("files", [])
            if not page.get("nextPageToken"):
                return
            parameters["pageToken"] = page["nextPageToken"]
        raise ProviderRefused(f"the Drive folder {what} has too many files", "move files of other programs elsewhere")

    # ------------------------------------------------------------------------------------- bytes
    def read_file(self, file: DriveFile) -> bytes:
        """A whole small file.

        Raises:
            NotFound, DriveFileChanged: it is being replaced. ProviderRefused: it is not small.
        """
        if file.size > _SMALL_FILE_BYTES:
            raise ProviderRefused(f"{file.name} on Drive has {units.format_bytes(file.size)}, too much for its kind")
        content = self.read_range(file, 0, file.size)
        if _md5_of(io.BytesIO(content)) != file.md5:
            raise _changed_error(file)
        return content

    def read_range(self, file: DriveFile, first: int, count: int) -> bytes:
        """`count` bytes from `first` on, or fewer where the file ends; retries after a broken connection."""
        content, attempts, last = b"", 0, min(first + count, file.size) - 1
        while first + len(content) <= last:
            with self._open(file, first + len(content), last) as response:
                piece, failure = _read_up_to(response, last + 1 - first - len(content))
            content += piece
            attempts = 0 if piece else attempts + 1
            _pause(file, attempts, failure)
        return content

    def download(self, file: DriveFile, path: Path) -> None:
        """Downloads a file to `path`; resumes a partial file, also of an earlier call, and checks the md5.

        Raises:
            Unreachable: it broke off several times; the partial file is kept. NotFound, DriveFileChanged: the file is
            being replaced. MachineError: the disk is too small.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        attempts = 0
        while (size := path.stat().st_size) < file.size:
            _check_space(path, file.size - size)
            failure = self._append(file, path, size)
            attempts = 0 if path.stat().st_size > size else attempts + 1
            _pause(file, attempts, failure)
        with open(path, "rb") as stream:
            is_intact = _md5_of(stream) == file.md5
        if not is_intact:
            path.unlink()
            raise _changed_error(file)

    def _append(self, file: DriveFile, path: Path, size: int) -> str:
        """Appends what is missing; returns why it broke off, or ""."""
        import requests
        import urllib3

        with self._open(file, size, None) as response, open(path, "ab") as stream:
            try:
                shutil.copyfileobj(response.raw, stream, _PIECE_BYTES)
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                return error_text(error)
        return ""

    def _open(self, file: DriveFile, first: int, last: int | None) -> Any:
        """The response with bytes from `first` on."""
        response = self._get(f"files/{quote(file.id, safe='')}", {"alt": "media"}, file.name, first, last)
        if first and response.status_code != 206:  # the whole file, whose bytes would be taken for its end
            response.close()
            raise Unreachable(f"{file.name}: Drive did not resume the download", LATER)
        return response

    # ------------------------------------------------------------------------------------- requests
    def _get(self, path: str, parameters: Mapping[str, Any], what: str, first: int = 0, last: int | None = None) -> Any:
        """The response; for a file's bytes only those from `first` to `last`, as a stream.

        Raises:
            NotFound, DriveFileChanged. Unreachable: no answer, or a temporary failure, after several attempts.
            LimitRefused: a quota is used up. NotSignedIn, ProviderRefused: a permanent refusal.
        """
        for pause_s in (*PAUSES_S, None):
            response, wait_s = self._get_once(path, parameters, what, _range_header(first, last))
            if not isinstance(response, BoneagectlError):
                return response
            if pause_s is None or not isinstance(response, Unreachable) or isinstance(response, DriveFileChanged):
                raise response
            time.sleep(min(_LONGEST_PAUSE_S, wait_s or pause_s))
        raise AssertionError("the last attempt returns or raises")

    def _get_once(
        self, path: str, parameters: Mapping[str, Any], what: str, headers: dict[str, str]
    ) -> tuple[Any, float | None]:
        """The response, or the error, and how long Google asks to wait."""
        import requests
        from google.auth.exceptions import GoogleAuthError

        is_media = parameters.get("alt") == "media"
        try:
            response = self._session.get(
                f"{HOST}/{path}", params=parameters, headers=headers, timeout=TIMEOUT_S, stream=is_media
            )
            if response.ok and not is_media:
                response.json()  # a torn body is no answer
        except GoogleAuthError as error:
            return _sign_in_error(error), None
        except (requests.RequestException, ValueError) as error:
            return Unreachable(f"{what}: Drive cannot be reached ({error_text(error)})", LATER), None
        return (response, None) if response.ok else (response_error(what, response), retry_after_s(response))


class DriveStream(io.RawIOBase):
    """A file on Drive as a seekable stream, for readers that need little of much; each block is loaded once."""

    def __init__(self, files: DriveClient, file: DriveFile) -> None:
        self._files, self._file, self._position = files, file, 0
        self._blocks: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}[whence]
        if start + offset < 0:
            raise ValueError("a position before the start")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        number, skip = divmod(self._position, _PIECE_BYTES)
        if number not in self._blocks:
            self._blocks[number] = self._files.read_range(self._file, number * _PIECE_BYTES, _PIECE_BYTES)
        piece = self._blocks[number][skip : skip + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def _read_up_to(response: Any, count: int) -> tuple[bytes, str]:
    """At most `count` bytes, as many as arrived, and why no more did."""
    import requests
    import urllib3

    content = io.BytesIO()
    try:
        while content.tell() < count and (piece := response.raw.read(min(_PIECE_BYTES, count - content.tell()))):
            content.write(piece)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        return content.getvalue(), error_text(error)
    return content.getvalue(), ""


def _pause(file: DriveFile, attempts: int, failure: str) -> None:
    """Attempts count only while nothing arrives."""
    if attempts > len(PAUSES_S):
        raise Unreachable(f"the download of {file.name} broke off: {failure}", "boneagectl collect resumes it")
    if attempts:
        time.sleep(PAUSES_S[attempts - 1])


def _check_space(path: Path, count: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if count > free:
        message = f"{path.name} needs {units.format_bytes(count)}, the disk has {units.format_bytes(free)} free"
        raise MachineError(message, "free some space")


def _range_header(first: int, last: int | None) -> dict[str, str]:
    """Without compression: a range of compressed bytes cannot be resumed."""
    part = {"Range": f"bytes={first}-{'' if last is None else last}"} if first or last is not None else {}
    return {"Accept-Encoding": "identity", **part}


def _drive_file(answer: dict[str, Any]) -> DriveFile | None:
    md5, is_folder = str(answer.get("md5Checksum", "")), answer.get("mimeType") == _FOLDER_TYPE
    is_google_type = str(answer.get("mimeType", "")).startswith("application/vnd.google-apps.")
    if not is_folder and (is_google_type or not _MD5.fullmatch(md5)):
        return None
    parent, size = (answer.get("parents") or [""])[0], int(answer.get("size") or 0)
    modified = answer.get("modifiedTime", "")
    return DriveFile(answer["id"], answer["name"], parent, size, "" if is_folder else md5, modified)


def _in_parents(parents: Sequence[str]) -> str:
    return f"({' or '.join(f'{_quoted(parent)} in parents' for parent in parents)})"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _md5_of(stream: Any) -> str:
    return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _changed_error(file: DriveFile) -> DriveFileChanged:
    return DriveFileChanged(f"{file.name} changed on Drive during the download: the notebook is writing", LATER)


# ------------------------------------------------------------------------------------------ the errors
def response_error(what: str, response: Any) -> BoneagectlError:
    """The error for a response with status 4xx or 5xx to a request about `what`."""
    status, (reasons, text) = response.status_code, _reasons_of(response)
    message = f"{what}: Drive answered {status} {', '.join(reasons)}: {text}"
    if status == 404:
        return NotFound(f"{what} is not on Drive", "check that this is the Google account that runs the notebook")
    if status == 416:
        return DriveFileChanged(message, LATER)
    if status in _RETRY_STATUSES or reasons & _TOO_FAST:
        return Unreachable(message, LATER)
    if reasons & _USED_UP:
        return LimitRefused(message, "wait until tomorrow, or download the zip in a browser: collect RUN --from ZIP")
    if reasons & _API_OFF:
        command = "gcloud services enable drive.googleapis.com --project=PROJECT, with the project of your OAuth client"
        return ProviderRefused(f"the Drive API is not enabled in the project of this sign-in; {message}", command)
    if reasons & _NO_SCOPE:
        return _scope_error()
    if status == 401:
        return NotSignedIn(f"Google rejected the sign-in; {message}", LOGIN)
    return ProviderRefused(message, "open the file in a browser: https://drive.google.com")


def _reasons_of(response: Any) -> tuple[Set[str], str]:
    """Google's reasons in their order, in its older and its newer format, and its message."""
    try:
        error = response.json()["error"]
        details = [*error.get("errors", []), *error.get("details", [])]
        reasons = dict.fromkeys(str(item["reason"]) for item in details if "reason" in item)
        return reasons.keys(), " ".join(str(error.get("message", "")).split())[:200]
    except (ValueError, LookupError, TypeError, AttributeError):
        return set(), str(response.reason or "")

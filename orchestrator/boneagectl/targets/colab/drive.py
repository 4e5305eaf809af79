"""The user's Drive through its API v3, read-only: the sign-in, folders by their path, and files checked by their md5.

Drive allows several files and folders of one name, and a mount that lost its connection creates such duplicates.
Therefore a path leads to all folders of that name, and of files with one name the newest counts.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
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
from boneagectl.targets import http

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
_FILES = "https://www.googleapis.com/drive/v3/files"
_FOLDER_TYPE = "application/vnd.google-apps.folder"
_FIELDS = "nextPageToken,files(id,name,mimeType,parents,size,md5Checksum,modifiedTime)"
_SMALL_FILE_BYTES = 1 << 25
_BLOCK_BYTES = 1 << 16
_MAX_PAGES = 100
_MD5 = re.compile(r"[0-9a-f]{32}")
_TOO_FAST = {"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"}
_USED_UP = {"dailyLimitExceeded", "quotaExceeded", "downloadQuotaExceeded", "storageQuotaExceeded"}
_API_OFF = {"accessNotConfigured", "SERVICE_DISABLED"}
_NO_SCOPE = {"insufficientPermissions", "insufficientScope", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"}


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
    send = session.request
    session.request = lambda *request, **options: send(*request, **{"timeout": http.TIMEOUT_S, **options})
    return http.add_retries(session, is_transient=lambda response: bool(_reasons_of(response) & _TOO_FAST))


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
        raise NotSignedIn(f"{path} is no valid sign-in: {http.error_text(error)}", LOGIN) from None
    credentials.token = None  # a stored token may have a wider scope than Drive
    return credentials.with_quota_project_from_environment()


def _sign_in_error(error: Any) -> RemoteError:
    """For an error of google-auth. Its text has Google's answer, and never a token."""
    from google.auth.exceptions import TransportError

    text = " ".join(str(error.args[0] if error.args else type(error).__name__).split())[:160]
    if isinstance(error, TransportError) or error.retryable:
        return Unreachable(f"Google's sign-in server cannot be reached: {text}", DRIVE.later)
    if "invalid_scope" in text:
        return _scope_error()
    weekly = "a sign-in through an OAuth client in testing expires after a week"
    return NotSignedIn(f"Google does not accept the sign-in: {text}", f"{LOGIN}; {weekly}")


def _scope_error() -> NotSignedIn:
    return NotSignedIn(f"this Google sign-in may not read Drive: it lacks the scope {SCOPE}", LOGIN)


# ------------------------------------------------------------------------------------------ the client
class DriveClient:
    """`session` is one of `open_session`."""

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
            with _translated_errors(f"listing {what}"):
                response = self._session.get(_FILES, params=parameters)
                response.raise_for_status()
                page = response.json()
            yield from page.get("files", [])
            if not page.get("nextPageToken"):
                return
            parameters["pageToken"] = page["nextPageToken"]
        raise ProviderRefused(f"the Drive folder {what} has too many files", "move files of other programs elsewhere")

    # ------------------------------------------------------------------------------------- bytes
    def read_file(self, file: DriveFile) -> bytes:
        """A whole small file.

        Raises:
            NotFound, http.ContentChanged: it is being replaced. ProviderRefused: it is not small.
        """
        if file.size > _SMALL_FILE_BYTES:
            raise ProviderRefused(f"{file.name} on Drive has {units.format_bytes(file.size)}, too much for its kind")
        content = self.read_range(file, 0, file.size)
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != file.md5:
            raise _changed_error(file)
        return content

    def read_range(self, file: DriveFile, first: int, count: int) -> bytes:
        """`count` bytes from `first` on, or fewer where the file ends."""
        last = min(first + count, file.size) - 1
        if first > last:
            return b""
        with _translated_errors(f"reading {file.name}"):
            headers = {"Range": f"bytes={first}-{last}", "Accept-Encoding": "identity"}  # no range of compressed bytes
            parameters = {"alt": "media"}
            content = http.read_bytes(
                self._session, _url(file), f"reading {file.name}", DRIVE, params=parameters, headers=headers
            )
        if len(content) != last + 1 - first:
            raise _changed_error(file)
        return content

    def download(self, file: DriveFile, path: Path) -> str:
        """Downloads a file to `path`, checks its md5, and returns its sha256; an interrupted download is resumed.

        Raises:
            Unreachable: it broke off several times. NotFound, http.ContentChanged: the file is being replaced.
            MachineError: the disk is too small.
        """
        with _translated_errors(f"downloading {file.name}"):
            parameters = {"alt": "media"}
            return http.download(
                self._session, _url(file), path, DRIVE, size=file.size, md5=file.md5, params=parameters
            )


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
        number, skip = divmod(self._position, _BLOCK_BYTES)
        if number not in self._blocks:
            self._blocks[number] = self._files.read_range(self._file, number * _BLOCK_BYTES, _BLOCK_BYTES)
        piece = self._blocks[number][skip : skip + len(buffer)]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def _url(file: DriveFile) -> str:
    return f"{_FILES}/{quote(file.id, safe='')}"


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


def _changed_error(file: DriveFile) -> http.ContentChanged:
    return http.ContentChanged(f"{file.name} changed on Drive meanwhile: the notebook is writing", DRIVE.later)


# ------------------------------------------------------------------------------------------ the errors
@contextmanager
def _translated_errors(what: str) -> Iterator[None]:
    """Turns errors of requests and of google-auth in the block into ours."""
    from google.auth.exceptions import GoogleAuthError

    try:
        with http.translated_errors(DRIVE, what):
            yield
    except GoogleAuthError as error:
        raise _sign_in_error(error) from None


def _own_error(response: Any, message: str) -> BoneagectlError | None:
    """The error for Google's own reasons; None where the status says everything."""
    reasons = _reasons_of(response)
    message = f"{message} ({', '.join(reasons)})" if reasons else message
    if response.status_code == 404:
        return NotFound(message, "check that this is the Google account that runs the notebook")
    if response.status_code == 416:
        return http.ContentChanged(message, DRIVE.later)
    if reasons & _TOO_FAST:
        return Unreachable(message, DRIVE.later)
    if reasons & _USED_UP:
        return LimitRefused(message, "wait until tomorrow, or download the zip in a browser: collect RUN --from ZIP")
    if reasons & _API_OFF:
        command = "gcloud services enable drive.googleapis.com --project=PROJECT, with the project of your OAuth client"
        return ProviderRefused(f"the Drive API is not enabled in the project of this sign-in; {message}", command)
    if reasons & _NO_SCOPE:
        return _scope_error()
    return ProviderRefused(message, DRIVE.refused) if response.status_code == 403 else None


def _reasons_of(response: Any) -> Set[str]:
    """Google's reasons in their order, in its older and its newer format."""
    if response.ok:
        return set()
    try:
        error = response.json()["error"]
        details = [*error.get("errors", []), *error.get("details", [])]
        return dict.fromkeys(str(item["reason"]) for item in details if "reason" in item).keys()
    except (ValueError, LookupError, TypeError, AttributeError):
        return set()


DRIVE = http.Provider(
    "Google Drive", sign_in=LOGIN, refused="open the file in a browser: https://drive.google.com", own_error=_own_error
)

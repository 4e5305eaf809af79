"""Who may read the user's Drive: the login that Google's own tools keep, with a token that reads and does no more.

Its scope is ``drive.readonly``, and that is said plainly: such a token can read everything on the Drive. boneagectl
asks for nothing but what lies in the folder ``boneagectl`` there, and sends GET alone. The narrower ``drive.file``
shows only files that the app itself made or a person opened with it: what a notebook writes through its mount is
neither, so that it would see an empty Drive. Whoever wants to give no scope at all downloads the zip that the
notebook offers: ``collect --from``.

Since June 2025 gcloud's own OAuth client has no scopes for Drive; a client of the user's own is needed, of the kind
"Desktop app", in a project in which the Drive API is enabled. gcloud insists on cloud-platform besides; the tokens
that are asked for here do without it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from boneage_trainer.contract import ContractError, parse_object
from boneagectl.errors import MachineError, Unreachable
from boneagectl.targets.answers import words

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
        raise MachineError(f"{path} is no login: {words(error)}", LOGIN) from None
    found.token = None  # one that was kept may open more than Drive
    return found.with_quota_project_from_environment()


def _kind(path: Path) -> str:
    try:
        said = parse_object(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise MachineError(f"nobody is signed in to Google: there is no {path}", f"{LOGIN}; {WITHOUT}") from None
    except (OSError, UnicodeDecodeError, ContractError) as error:
        raise MachineError(f"{path} is no login: {words(error)}", LOGIN) from None
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

"""Kaggle credentials, looked up in the order of Kaggle's own tools; messages name their origin, never their value."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boneagectl.errors import NotSignedIn

HOW = "make a token at kaggle.com/settings and save it as ~/.kaggle/access_token, or: kaggle auth login"


@dataclass(frozen=True, slots=True)
class Credentials:
    """`kind` is token, key or login; `username` is empty if only Kaggle knows it."""

    kind: str
    origin: str
    username: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind} from {self.origin}"


def find_credentials() -> Credentials:
    """The first credentials; bad ones hide all later ones, as with Kaggle's own tools.

    Raises:
        NotSignedIn: there are none.
    """
    for credentials in (*_tokens(), *_keys(), *_logins()):
        return credentials
    raise NotSignedIn("no Kaggle credentials on this machine", HOW)


def have_credentials() -> bool:
    try:
        find_credentials()
    except NotSignedIn:
        return False
    return True


def _tokens() -> Iterator[Credentials]:
    value = os.environ.get("KAGGLE_API_TOKEN", "")
    if value:
        text = Path(value).read_text() if Path(value).is_file() else value
        yield Credentials("token", "$KAGGLE_API_TOKEN", "", text.strip())
    for name in ("access_token", "access_token.txt"):
        if text := _read_text(Path.home() / ".kaggle" / name).strip():
            yield Credentials("token", f"~/.kaggle/{name}", "", text)


def _keys() -> Iterator[Credentials]:
    user, key = os.environ.get("KAGGLE_USERNAME", ""), os.environ.get("KAGGLE_KEY", "")
    if user and key:
        yield Credentials("key", "$KAGGLE_USERNAME and $KAGGLE_KEY", user, key)
    folders = (os.environ.get("KAGGLE_CONFIG_DIR"), Path.home() / ".kaggle", Path.home() / ".config" / "kaggle")
    for path in (Path(folder) / "kaggle.json" for folder in folders if folder):
        fields = _read_json(path)
        if fields.get("username") and fields.get("key"):
            yield Credentials("key", str(path), fields["username"], fields["key"])


def _logins() -> Iterator[Credentials]:
    """What ``kaggle auth login`` saved; the SDK renews the access token when it is used."""
    path = Path.home() / ".kaggle" / "credentials.json"
    fields = _read_json(path)
    if fields.get("refresh_token"):
        yield Credentials("login", str(path), fields.get("username") or "", fields["refresh_token"])


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(_read_text(path) or "{}")
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}

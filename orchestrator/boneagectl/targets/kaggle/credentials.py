"""Which Kaggle credentials are in use: found in the order of Kaggle's own tools, told by origin and never by value."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boneagectl.errors import MachineError

HOW = "make a token at kaggle.com/settings and save it as ~/.kaggle/access_token, or: kaggle auth login"


@dataclass(frozen=True, slots=True)
class Credentials:
    """`kind` is token, key or login; `username` is empty where only Kaggle knows it."""

    kind: str
    origin: str
    username: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind} from {self.origin}"


def find_credentials() -> Credentials:
    """The first of what is there; a bad one hides the good ones behind it, as with Kaggle's own tools.

    Raises:
        MachineError: there is none.
    """
    for found in (*_tokens(), *_keys(), *_logins()):
        return found
    raise MachineError("no Kaggle credentials on this machine", HOW)


def have_credentials() -> bool:
    try:
        find_credentials()
    except MachineError:
        return False
    return True


def _tokens() -> Iterator[Credentials]:
    given = os.environ.get("KAGGLE_API_TOKEN", "")
    if given:
        text = Path(given).read_text() if Path(given).is_file() else given
        yield Credentials("token", "$KAGGLE_API_TOKEN", "", text.strip())
    for name in ("access_token", "access_token.txt"):
        if text := _read(Path.home() / ".kaggle" / name).strip():
            yield Credentials("token", f"~/.kaggle/{name}", "", text)


def _keys() -> Iterator[Credentials]:
    user, key = os.environ.get("KAGGLE_USERNAME", ""), os.environ.get("KAGGLE_KEY", "")
    if user and key:
        yield Credentials("key", "$KAGGLE_USERNAME and $KAGGLE_KEY", user, key)
    folders = (os.environ.get("KAGGLE_CONFIG_DIR"), Path.home() / ".kaggle", Path.home() / ".config" / "kaggle")
    for path in (Path(folder) / "kaggle.json" for folder in folders if folder):
        said = _read_json(path)
        if said.get("username") and said.get("key"):
            yield Credentials("key", str(path), said["username"], said["key"])


def _logins() -> Iterator[Credentials]:
    """What ``kaggle auth login`` left; the SDK renews the access token when it is used."""
    path = Path.home() / ".kaggle" / "credentials.json"
    said = _read_json(path)
    if said.get("refresh_token"):
        yield Credentials("login", str(path), said.get("username") or "", said["refresh_token"])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(_read(path) or "{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}

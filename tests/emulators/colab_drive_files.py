"""The Drive emulator's files: a plain folder, as a mounted Drive shows it, and the API's further metadata."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = "application/vnd.google-apps.folder"
ROOT_ID = "0ABoneAgeRootPVA"


def new_id() -> str:
    return f"1{secrets.token_urlsafe(24)}"


@dataclass
class Entry:
    """A file or folder. Its id follows the inode: a renamed file keeps it, a replacement gets a new one."""

    id: str
    path: Path
    name: str
    mime: str
    pin: int
    """An open descriptor: it keeps the inode from being reused, and a rename from ending a download."""
    is_ours: bool = False
    """Whether the app created or opened it: what the scope drive.file shows."""
    parent: str = ROOT_ID
    created_s: float = 0.0
    is_trashed: bool = False
    own: dict[str, Any] = field(default_factory=dict)
    """The app's metadata: appProperties, properties, description."""
    _md5: tuple[tuple[int, int], str] | None = None

    @property
    def is_folder(self) -> bool:
        return self.mime == FOLDER

    @property
    def stat(self) -> os.stat_result:
        return os.fstat(self.pin)

    @property
    def inode(self) -> int:
        return self.stat.st_ino

    @property
    def size(self) -> int:
        return 0 if self.is_folder else self.stat.st_size

    @property
    def content(self) -> bytes:
        with open(self.pin, "rb", closefd=False) as stream:
            stream.seek(0)
            return stream.read()

    @property
    def md5(self) -> str:
        stat = self.stat
        mark = (stat.st_size, stat.st_mtime_ns)
        if self._md5 is None or self._md5[0] != mark:
            self._md5 = (mark, hashlib.md5(self.content, usedforsecurity=False).hexdigest())
        return self._md5[1]

    def as_json(self) -> dict[str, Any]:
        said = {"kind": "drive#file", "id": self.id, "name": self.name, "mimeType": self.mime, "parents": [self.parent],
                "trashed": self.is_trashed, "starred": False, "createdTime": _text(self.created_s), "modifiedTime":
                _text(self.stat.st_mtime), "spaces": ["drive"], "ownedByMe": True, **self.own}  # fmt: skip
        if not self.is_folder:
            said |= {"size": str(self.size), "md5Checksum": self.md5, "originalFilename": self.name}
        return said


class Files:
    """My Drive below `folder`. Each access first reads what others changed there, such as the mount of a notebook."""

    def __init__(self, root: Path) -> None:
        self.mount, self.folder, self._trash = root, root / "MyDrive", root.with_name(f"{root.name}-trash")
        self.folder.mkdir(parents=True)
        self._trash.mkdir()
        self._entries: dict[str, Entry] = {}

    def close(self) -> None:
        for entry_id in list(self._entries):
            self._forget(entry_id)

    # --------------------------------------------------------------------------------- looks
    def all(self) -> list[Entry]:
        self._take_up()
        return list(self._entries.values())

    def find(self, entry_id: str) -> Entry | None:
        self._take_up()
        return self._entries.get(entry_id)

    def at(self, path: str) -> Entry:
        """The entry of a path below My Drive."""
        return next(entry for entry in self.all() if entry.path == self.folder / path)

    def used_bytes(self) -> int:
        """The trash counts too."""
        return sum(entry.size for entry in self.all())

    def _take_up(self) -> None:
        found = dict(_walk(self.folder))
        by_inode = {entry.inode: entry for entry in self._entries.values() if not entry.is_trashed}
        ids = {self.folder: ROOT_ID}
        seen = set()
        for path, inode in found.items():
            if path.parent not in ids:
                continue  # it went while we looked
            try:
                entry = by_inode.get(inode) or self._add(path)
            except FileNotFoundError:
                continue
            if entry.path != path:
                entry.path, entry.name = path, path.name
            entry.parent = ids[path.parent]
            ids[path] = entry.id
            seen.add(entry.id)
        for entry in by_inode.values():
            if entry.id not in seen:
                self._forget(entry.id)

    def _add(self, path: Path, entry_id: str = "") -> Entry:
        mime = FOLDER if path.is_dir() else mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        entry = Entry(entry_id or new_id(), path, path.name, mime, os.open(path, os.O_RDONLY))
        entry.created_s = path.stat().st_mtime
        self._entries[entry.id] = entry
        return entry

    def _forget(self, entry_id: str) -> None:
        os.close(self._entries.pop(entry_id).pin)

    # ------------------------------------------------------------------------------- changes
    def make(self, name: str, parent: str, mime: str, body: bytes, entry_id: str = "") -> Entry:
        """A new file or folder. Drive allows duplicate names; a folder on disk does not, and numbers them."""
        path = self._free(self._place(parent) / name.replace("/", "_"))
        if mime == FOLDER:
            path.mkdir()
        else:
            path.write_bytes(body)
        entry = self._add(path, entry_id)
        entry.name, entry.parent, entry.is_ours = name, parent, True
        entry.mime = mime or entry.mime
        return entry

    def write(self, entry: Entry, body: bytes) -> None:
        """New content in place: it stays the same file."""
        entry.path.write_bytes(body)

    def move(self, entry: Entry, name: str, parent: str) -> None:
        if (name, parent) == (entry.name, entry.parent):
            return
        path = self._free(self._place(parent) / name.replace("/", "_"))
        self._rebase(entry, path)
        entry.name, entry.parent = name, parent

    def trash(self, entry: Entry, is_trashed: bool) -> None:
        """Moves it with everything inside to the trash, or back."""
        if entry.is_trashed == is_trashed:
            return
        place = self._trash / entry.id if is_trashed else self._free(self._place(entry.parent) / entry.name)
        below = self._below(entry)
        self._rebase(entry, place)
        for one in (entry, *below):
            one.is_trashed = is_trashed

    def delete(self, entry: Entry) -> None:
        """Deletes it permanently, with everything inside."""
        below = self._below(entry)
        if entry.is_folder:
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink()
        for one in (entry, *below):
            self._forget(one.id)

    def _below(self, entry: Entry) -> list[Entry]:
        return [one for one in self._entries.values() if entry.path in one.path.parents]

    def _rebase(self, entry: Entry, path: Path) -> None:
        below = self._below(entry)
        entry.path.rename(path)
        for one in below:
            one.path = path / one.path.relative_to(entry.path)
        entry.path = path

    def _place(self, parent: str) -> Path:
        return self.folder if parent == ROOT_ID else self._entries[parent].path

    def _free(self, path: Path) -> Path:
        free, number = path, 0
        while free.exists():
            number += 1
            free = path.with_name(f"{path.stem} ({number}){path.suffix}")
        return free


def _walk(folder: Path) -> Iterator[tuple[Path, int]]:
    """Each path below, parents first, with its inode; without paths that disappear meanwhile."""
    with os.scandir(folder) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        try:
            inode, is_folder = child.stat(follow_symlinks=False).st_ino, child.is_dir(follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield Path(child.path), inode
        if is_folder:
            yield from _walk(Path(child.path))


def _text(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"

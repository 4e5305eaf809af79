"""What the Azure emulator's nodes see of the blob store: folders that come from it, and folders that go there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emulators.azure import Azure
    from emulators.azure_ml import Place

_SMALL = 1 << 24


def download(azure: Azure, place: Place, folder: Path) -> Path:
    """All blobs below the place into `folder`; of a single blob, the path of its file.

    Raises:
        FileNotFoundError: there is none.
    """
    path = place.path.rstrip("/")
    names = azure.blobs.names(place.account, place.container, f"{path}/" if path else "")
    wanted = {name: folder / name[len(path) :].lstrip("/") for name in names}
    is_file = not wanted and path in azure.blobs.names(place.account, place.container, path)
    if is_file:
        wanted = {path: folder / path.rpartition("/")[2]}
    if not wanted:
        raise FileNotFoundError(f"nothing at {path}")
    for name, target in wanted.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        azure.blobs.fetch(place.account, place.container, name, target)
    return wanted[path] if is_file else folder


class Mount:
    """A folder whose closed files are blobs soon after, and no blobs any more when they are gone."""

    def __init__(self, azure: Azure, place: Place, folder: Path, below: str = "") -> None:
        self.azure, self.place, self.folder = azure, place, folder
        self.prefix = "/".join(part for part in (place.path.strip("/"), below) if part)
        self.seen: dict[str, tuple[int, int, int]] = {}

    def sync(self) -> None:
        """The oldest change first, as they were made."""
        now = dict(sorted(self._files().items(), key=lambda one: one[1]))
        for name, mark in now.items():
            if self.seen.get(name) != mark:
                with suppress(FileNotFoundError):  # renamed meanwhile: the next round sees it
                    self._put(name)
                    self.seen[name] = mark
        for name in set(self.seen) - set(now):
            with suppress(KeyError):
                self.azure.blobs.delete(self.place.account, self.place.container, f"{self.prefix}/{name}")
            del self.seen[name]

    def _put(self, name: str) -> None:
        """A small file at once, since it may grow meanwhile; a large one need not fit into memory."""
        with open(self.folder / name, "rb") as stream:
            is_small = os.fstat(stream.fileno()).st_size < _SMALL
            body = stream.read() if is_small else stream
            self.azure.blobs.put(self.place.account, self.place.container, f"{self.prefix}/{name}", body)

    def _files(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file():
                    about = path.stat()
                    mark = (about.st_mtime_ns, about.st_size, about.st_ino)
                    found[path.relative_to(self.folder).as_posix()] = mark
        return found

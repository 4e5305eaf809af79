"""What the Azure emulator's nodes see of the blob store: folders that come from it, and folders that go there."""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emulators.azure import Azure
    from emulators.azure_ml import Place

LOG = "user_logs/std_log.txt"
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


class Log:
    """One node's output on its way to a blob; the first node's is the one that is shown."""

    def __init__(self, azure: Azure, workspace: dict[str, Any], job: str, at: int) -> None:
        self.azure, self.place = azure, azure.workspaces.artifacts(workspace, job)
        self.blob = f"{self.place.path}/{LOG if at == 0 else LOG.replace('std_log', f'std_log_process_{at}')}"
        self.waiting, self.lock = bytearray(), threading.Lock()
        self.is_there = False
        self.thread: threading.Thread | None = None

    def follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.thread = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self.thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        with pipe:
            while piece := os.read(pipe.fileno(), 1 << 16):
                with self.lock:
                    self.waiting += piece

    def write(self) -> None:
        """There is no blob before the first byte."""
        with self.lock:
            piece, self.waiting = bytes(self.waiting), bytearray()
        if not piece:
            return
        if not self.is_there:
            self.azure.blobs.start_log(self.place.account, self.place.container, self.blob)
            self.is_there = True
        self.azure.blobs.append(self.place.account, self.place.container, self.blob, piece)

    def close(self) -> None:
        if self.thread:
            self.thread.join(5)
        self.write()

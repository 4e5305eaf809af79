"""The user's Drive: files are copied there completely or not at all, and the newest complete checkpoint is restored.

Drive is slow, disconnects, fills up and loses files. Everything is therefore copied to a temporary name, read back and
renamed; a leg has two slots there, ``a`` and ``b``, of which one is always complete.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of
from boneage_trainer.platforms import colab_api

SLOTS = ("a", "b")
PAUSES_S = (1.0, 4.0, 15.0)
"""Between attempts. If all fail, the next epoch tries again."""
_EPOCH = "the newest epoch"
_SNAPSHOTS, _SNAPSHOT_PAUSE_S = 8, 0.05
_MOUNT_EVERY_S = 600.0
"""A new mount may ask the user for access: not at each epoch."""


class MountedDrive:
    """The user's Drive, mounted at `point`; `my` is the folder My Drive."""

    def __init__(self, point: Path) -> None:
        self.point, self.my = point, point / "MyDrive"

    def mount(self, force: bool = False) -> None:
        """Raises OSError where it cannot be mounted."""
        colab_api.mount_drive(self.point, force)
        self.check()

    def check(self) -> None:
        """Raises OSError where Drive is not mounted: its folder would be created on the local disk, and lost."""
        if not self.my.is_dir():
            raise OSError(errno.ENOTCONN, "Drive is not mounted any more", str(self.my))

    def copy_in(self, source: Path, dest: Path) -> str:
        """Copies `source` to `dest` on Drive, completely or not at all; returns its sha256.

        Raises:
            OSError: it did not arrive, or not as it was sent.
        """
        self.check()
        dest.parent.mkdir(parents=True, exist_ok=True)
        temporary, sha256 = dest.with_name(f".{dest.name}.part"), sha256_of(source)
        shutil.copyfile(source, temporary)
        _check_sha256(temporary, sha256)
        if dest.exists():  # a replaced file moves to Drive's trash, where it counts: make it empty
            os.truncate(dest, 0)
        os.replace(temporary, dest)
        _check_sha256(dest, sha256)
        return sha256


def _check_sha256(path: Path, sha256: str) -> None:
    if sha256_of(path) != sha256:
        raise OSError(errno.EIO, "Drive stored different bytes than were written", str(path))


def checkpoint_files(folder: RunFolder) -> list[Path]:
    """The existing files of a run folder that the next session needs; weights first."""
    return [path for path in (folder.best, folder.last, folder.metrics, folder.state) if path.exists()]


def stored_progress(folder: RunFolder) -> tuple[int, float]:
    """The epoch that `folder` holds, -1 where nothing in it is complete, and when its state was written.

    A session's final state has the same epoch as its last epoch, hence the time.
    """
    try:
        archive.check_files(folder, [folder.state])
        state = parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name)
        return int(state["epoch"]), float(state["updated_s"])
    except (OSError, ContractError, KeyError, UnicodeDecodeError):
        return -1, 0.0


def drive_error_text(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Drive is full: empty its trash, or delete something"
    return " ".join(str(error).split())[:300] or type(error).__name__


# ----------------------------------------------------------------------------------------- restoring
def restore_checkpoint(source: Path, dest: Path, notify: Callable[[str], None]) -> RunFolder | None:
    """Copies the newest complete checkpoint of a leg from below `source` on Drive to `dest`; None without one.

    `source` itself counts too: there a user puts the ``checkpoint`` folder of a leg that ran elsewhere, with or without
    its manifest; the trainer verifies the weights' own checksums.

    Raises:
        ContractError: all checkpoints there are damaged.
        OSError: Drive cannot be read.
    """
    folders = [RunFolder(source / name) for name in (*SLOTS, "")]
    folders = sorted((folder for folder in folders if folder.last.is_file()), key=stored_progress, reverse=True)
    for number, folder in enumerate(folders):
        try:
            restored = _restore(folder, RunFolder(dest))
        except ContractError as error:
            notify(f"{error}; trying the previous copy")
        else:
            # The next epoch must go to the damaged slot, not to the complete one.
            for damaged in (folder.root for folder in folders[:number] if folder.root.name in SLOTS):
                aside = damaged.with_name(f"{damaged.name}-damaged")
                shutil.rmtree(aside, ignore_errors=True)
                with suppress(OSError):
                    damaged.rename(aside)
            return restored
    if folders:
        raise ContractError(f"all checkpoints in {source} are damaged; to start from epoch 1, rename that folder")
    return None


def _restore(source: RunFolder, dest: RunFolder) -> RunFolder:
    """Reads a copy that seems damaged a second time: Drive also makes errors when reading."""
    try:
        return _copy_and_check(source, dest)
    except ContractError:
        return _copy_and_check(source, dest)


def _copy_and_check(source: RunFolder, dest: RunFolder) -> RunFolder:
    shutil.rmtree(dest.root, ignore_errors=True)
    files, has_manifest = checkpoint_files(source), source.manifest.is_file()
    for path in [*files, *([source.manifest] if has_manifest else [])]:
        copy_with_retries(path, dest.root / path.relative_to(source.root))
    if has_manifest:
        archive.check_files(dest, [dest.root / path.relative_to(source.root) for path in files])
    return dest


def copy_with_retries(source: Path, dest: Path) -> None:
    """Copies a file from Drive; tries again after each pause while that raises OSError, and raises the last error."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    for pause_s in PAUSES_S:
        try:
            shutil.copyfile(source, dest)
        except OSError:
            time.sleep(pause_s)
        else:
            return
    shutil.copyfile(source, dest)


# ----------------------------------------------------------------------------------------- mirroring
class DriveMirror:
    """Copies the newest epoch in `out` to `dest` on `drive`, and other things, in a background thread.

    Drive never delays training: only the newest job of each name waits, however long Drive takes. `notify` receives a
    message when Drive fails and when it works again.
    """

    def __init__(
        self, drive: MountedDrive, dest: Path, out: RunFolder, staging: Path, notify: Callable[[str], None]
    ) -> None:
        self._drive, self._dest, self._out, self._notify = drive, dest, out, notify
        self._staged = RunFolder(staging)
        self._copied: dict[Path, str] = {}  # sha256 of what was written, by its path on Drive
        self._missing: dict[str, str] = {}  # why, by the job's name
        self._jobs: dict[str, Callable[[], object]] = {}
        self._running = ""
        self._next_mount_s = 0.0
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def copy_epoch(self) -> None:
        """Requests a copy of the newest epoch. Returns at once."""
        self.add_job(_EPOCH, self._copy_newest)

    def add_job(self, name: str, job: Callable[[], object]) -> None:
        """Queues `job`, which is retried when it raises OSError; it replaces a waiting job of that name."""
        with self._changed:
            self._jobs[name] = job
            self._changed.notify_all()

    def wait(self, limit_s: float) -> list[str]:
        """Waits until every job is done or given up, at most `limit_s`; returns what is not on Drive, and why."""
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs and not self._running, limit_s)
            late = [*self._jobs, *filter(None, [self._running])]
            missing = {**dict.fromkeys(late, f"Drive took longer than {limit_s:.0f} s"), **self._missing}
        return [f"{name}: {reason}" for name, reason in missing.items()]

    # ------------------------------------------------------------------------------- in its thread
    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._jobs))
                self._running = _EPOCH if _EPOCH in self._jobs else next(iter(self._jobs))
                job = self._jobs.pop(self._running)
            self._run_job(self._running, job)
            with self._changed:
                self._running = ""
                self._changed.notify_all()

    def _run_job(self, name: str, job: Callable[[], object]) -> None:
        """Several attempts with pauses and one new mount; notifies on a change only, not each time."""
        for number, pause_s in enumerate((*PAUSES_S, 0.0)):
            try:
                job()
            except Exception as error:  # any error: a thread that ends would silently copy nothing more
                reason = drive_error_text(error)
                if name not in self._missing:
                    self._notify(f"Drive: {name} is not copied yet: {reason}. Training continues")
                self._missing[name] = reason
            else:
                if self._missing.pop(name, ""):
                    self._notify(f"Drive works again: {name} is copied")
                return
            if number == 0:
                self._mount_again()
            time.sleep(pause_s)

    def _mount_again(self) -> None:
        """Where Drive is not mounted any more, and not too often."""
        with suppress(OSError):
            return self._drive.check()
        if time.monotonic() < self._next_mount_s:
            return None
        self._next_mount_s = time.monotonic() + _MOUNT_EVERY_S
        self._copied.clear()  # files that were not uploaded before the disconnection are lost
        try:
            return self._drive.mount(force=True)
        except OSError as error:
            return self._notify(f"Drive could not be mounted again: {drive_error_text(error)}")

    def _copy_newest(self) -> None:
        """Copies the newest epoch to the slot with the older copy.

        Raises:
            OSError: Drive holds a later epoch, so another session of this leg is running.
        """
        staged = self._snapshot()
        self._drive.check()
        progress = {name: stored_progress(RunFolder(self._dest / name)) for name in SLOTS}
        if (newest := max(progress.values())[0]) > stored_progress(staged)[0]:
            raise OSError(f"it holds epoch {newest} already: is this notebook open twice? Close one")
        slot = self._dest / min(SLOTS, key=lambda name: progress[name])
        for path in [*checkpoint_files(staged), staged.manifest]:  # the manifest last: it vouches for the others
            self._copy(path, slot / path.relative_to(staged.root))

    def _copy(self, source: Path, dest: Path) -> None:
        """Skips a file that Drive has; retries once at once, since most of Drive's errors last for one call."""
        has_size = dest.is_file() and dest.stat().st_size == source.stat().st_size
        if has_size and self._copied.get(dest) == sha256_of(source):
            return
        self._copied.pop(dest, None)
        try:
            self._copied[dest] = self._drive.copy_in(source, dest)
        except OSError:
            self._copied[dest] = self._drive.copy_in(source, dest)

    def _snapshot(self) -> RunFolder:
        """The files of one epoch as hard links, which do not change while the trainer writes the next epoch."""
        for _ in range(_SNAPSHOTS):
            try:
                return self._link_epoch(self._staged)
            except (ContractError, FileNotFoundError):  # an epoch ended in between
                time.sleep(_SNAPSHOT_PAUSE_S)
        return self._link_epoch(self._staged)

    def _link_epoch(self, staged: RunFolder) -> RunFolder:
        shutil.rmtree(staged.root, ignore_errors=True)
        for path in [self._out.manifest, *checkpoint_files(self._out)]:
            link = staged.root / path.relative_to(self._out.root)
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
        archive.check_files(staged, [staged.last, *checkpoint_files(staged)])
        return staged

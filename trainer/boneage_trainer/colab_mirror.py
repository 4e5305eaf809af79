"""Keeps what a training reaches on the user's Drive, in the background, and never lets Drive stop the training."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from boneage_trainer import archive, colab_drive
from boneage_trainer.colab_drive import SLOTS, Drive, carried, epoch_in, reached, words_of
from boneage_trainer.contract import ContractError, RunFolder, sha256_of

_EPOCH = "the newest epoch"
_SNAPSHOTS, _SNAPSHOT_PAUSE_S = 8, 0.05
_MOUNT_EVERY_S = 600.0
"""A new mount may ask the user for access: not at each epoch."""


class Mirror:
    """Brings the newest epoch in `out` to `place` on `drive`, and other things, in the background.

    Only the newest of each kind waits, however long Drive takes; `tell` hears when Drive fails and when it is back.
    """

    def __init__(self, drive: Drive, place: Path, out: RunFolder, staging: Path, tell: Callable[[str], None]) -> None:
        self._drive, self._place, self._out, self._tell = drive, place, out, tell
        self._staged = RunFolder(staging)
        self._there: dict[Path, str] = {}  # sha256 of what was written
        self._missing: dict[str, str] = {}  # what, and why
        self._todo: dict[str, Callable[[], object]] = {}
        self._busy = ""
        self._next_mount_s = 0.0
        self._changed = threading.Condition()
        threading.Thread(target=self._work, daemon=True).start()

    def wake(self) -> None:
        """An epoch is finished. Returns at once."""
        self.also(_EPOCH, self._copy_newest)

    def also(self, what: str, job: Callable[[], object]) -> None:
        """Has `job` done, which may raise OSError, and then again; it takes the place of one called alike."""
        with self._changed:
            self._todo[what] = job
            self._changed.notify_all()

    def settle(self, limit_s: float) -> list[str]:
        """Waits until everything is done or given up, at most `limit_s`; returns what is not on Drive, and why."""
        with self._changed:
            self._changed.wait_for(lambda: not self._todo and not self._busy, limit_s)
            late = [*self._todo, *filter(None, [self._busy])]
            missing = {**dict.fromkeys(late, f"Drive took longer than {limit_s:.0f} s"), **self._missing}
        return [f"{what}: {why}" for what, why in missing.items()]

    # ------------------------------------------------------------------------------- in its thread
    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._todo))
                self._busy = _EPOCH if _EPOCH in self._todo else next(iter(self._todo))
                job = self._todo.pop(self._busy)
            self._try(self._busy, job)
            with self._changed:
                self._busy = ""
                self._changed.notify_all()

    def _try(self, what: str, job: Callable[[], object]) -> None:
        """Tries with pauses and one new mount; tells when Drive fails and when it works again, not each time."""
        for number, pause_s in enumerate((*colab_drive.PAUSES_S, 0.0)):
            try:
                job()
            except Exception as error:  # whatever it is: a thread that died would copy nothing more, unheard
                self._failed(what, words_of(error))
            else:
                if self._missing.pop(what, ""):
                    self._tell(f"Drive works again: {what} is there")
                return
            if number == 0:
                self._mount_again()
            time.sleep(pause_s)

    def _failed(self, what: str, why: str) -> None:
        if what not in self._missing:
            self._tell(f"Drive: {what} is not there yet: {why}. The training goes on")
        self._missing[what] = why

    def _mount_again(self) -> None:
        """Where Drive is gone, now and then."""
        with suppress(OSError):
            return self._drive.check()
        if time.monotonic() < self._next_mount_s:
            return None
        self._next_mount_s = time.monotonic() + _MOUNT_EVERY_S
        self._there.clear()  # what was not uploaded yet is gone
        try:
            return self._drive.mount(again=True)
        except OSError as error:
            return self._tell(f"Drive could not be mounted again: {words_of(error)}")

    def _copy_newest(self) -> None:
        staged = self._snapshot()
        slot = self._free_slot(epoch_in(staged))
        for path in [*carried(staged), staged.manifest]:  # the list last: it vouches for the others
            self._put(path, slot / path.relative_to(staged.root))

    def _put(self, source: Path, place: Path) -> None:
        """Unless it is there; a second time at once, since most faults of Drive last for one call."""
        is_there = place.is_file() and place.stat().st_size == source.stat().st_size
        if is_there and self._there.get(place) == sha256_of(source):
            return
        self._there.pop(place, None)
        try:
            self._there[place] = self._drive.put(source, place)
        except OSError:
            self._there[place] = self._drive.put(source, place)

    def _free_slot(self, epoch: int) -> Path:
        """Where the older of the two copies is.

        Raises:
            OSError: Drive holds a later epoch, so another session of this leg is at work.
        """
        self._drive.check()
        there = {name: reached(RunFolder(self._place / name)) for name in SLOTS}
        if (newest := max(there.values())[0]) > epoch:
            raise OSError(f"it holds epoch {newest} already: is this notebook open twice? Close one")
        return self._place / min(SLOTS, key=lambda name: there[name])

    def _snapshot(self) -> RunFolder:
        """The files of one epoch as links, which stay as they are while the trainer writes the next."""
        for _ in range(_SNAPSHOTS):
            try:
                return self._linked(self._staged)
            except (ContractError, FileNotFoundError):  # an epoch ended in between
                time.sleep(_SNAPSHOT_PAUSE_S)
        return self._linked(self._staged)

    def _linked(self, staged: RunFolder) -> RunFolder:
        shutil.rmtree(staged.root, ignore_errors=True)
        link_all(self._out.root, [self._out.manifest, *carried(self._out)], staged.root)
        archive.check_files(staged, [staged.last, *carried(staged)])
        return staged


def link_all(root: Path, files: Iterable[Path], dest: Path) -> None:
    """Gives the `files` below `root` a second name below `dest`."""
    for path in files:
        place = dest / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)

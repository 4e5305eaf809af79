"""The user's Drive: files are put there whole or not at all, and a leg is taken back from its newest whole copy.

Drive is slow, drops out, fills up and forgets. So everything is copied to a temporary name, read back, and renamed;
a leg has two places there, ``a`` and ``b``, of which one is always whole.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from boneage_trainer import archive
from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of
from boneage_trainer.platforms import colab_api

SLOTS = ("a", "b")
PAUSES_S = (1.0, 4.0, 15.0)
"""Between tries. Where all fail, the next epoch tries again."""


class Drive:
    """The user's Drive, mounted at `point`."""

    def __init__(self, point: Path) -> None:
        self.point, self.my = point, point / "MyDrive"

    def mount(self, again: bool = False) -> None:
        """Raises OSError where it cannot be."""
        colab_api.mount(self.point, again)
        self.check()

    def check(self) -> None:
        """Raises OSError where Drive is not there: its folder would then be made on the local disk, and lost."""
        if not self.my.is_dir():
            raise OSError(errno.ENOTCONN, "Drive is not mounted any more", str(self.my))

    def put(self, source: Path, place: Path) -> str:
        """Copies `source` to `place` on Drive, whole or not at all; returns its sha256.

        Raises:
            OSError: it is not there, or something else is.
        """
        self.check()
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary, wanted = place.with_name(f".{place.name}.part"), sha256_of(source)
        shutil.copyfile(source, temporary)
        _expect(temporary, wanted)
        if place.exists():  # what is replaced goes to Drive's trash, and counts there: let it weigh nothing
            os.truncate(place, 0)
        os.replace(temporary, place)
        _expect(place, wanted)
        return wanted


def _expect(path: Path, sha256: str) -> None:
    if sha256_of(path) != sha256:
        raise OSError(errno.EIO, "Drive holds something else than was written", str(path))


def carried(folder: RunFolder) -> list[Path]:
    """The files of a run folder that a next session needs, those that exist; weights first."""
    return [path for path in (folder.best, folder.last, folder.metrics, folder.state) if path.exists()]


def epoch_in(folder: RunFolder) -> int:
    """The epoch that `folder` says it holds; -1 where it holds nothing whole."""
    return reached(folder)[0]


def reached(folder: RunFolder) -> tuple[int, float]:
    """The epoch, and when its state was written: the last word of a session has the same epoch as its last epoch."""
    try:
        archive.check_files(folder, [folder.state])
        state = parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name)
        return int(state["epoch"]), float(state["updated_s"])
    except (OSError, ContractError, KeyError, UnicodeDecodeError):
        return -1, 0.0


def words_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Drive is full: empty its trash, or delete something"
    return " ".join(str(error).split())[:300] or type(error).__name__


# ----------------------------------------------------------------------------------------- taken back
def take_back(place: Path, dest: Path, tell: Callable[[str], None]) -> RunFolder | None:
    """The newest whole state of a leg below `place` on Drive, copied to `dest`; None where nothing is there.

    ``place`` itself counts too: that is where a person puts the ``checkpoint`` folder of a leg from elsewhere, with
    or without its manifest; the trainer verifies the weights' own checksums.

    Raises:
        ContractError: all that is there is damaged.
        OSError: Drive does not give it.
    """
    found = [RunFolder(place / name) for name in (*SLOTS, "")]
    found = sorted((one for one in found if one.last.is_file()), key=reached, reverse=True)
    for number, one in enumerate(found):
        try:
            taken = _taken(one, RunFolder(dest))
        except ContractError as error:
            tell(f"{error}; trying the copy before it")
        else:
            for damaged in found[:number]:
                _set_aside(damaged)
            return taken
    if found:
        raise ContractError(f"every copy in {place} is damaged; to begin anew, give that folder another name")
    return None


def _set_aside(damaged: RunFolder) -> None:
    """So that the next epoch takes its place, and not that of the copy which is whole."""
    if damaged.root.name in SLOTS:
        aside = damaged.root.with_name(f"{damaged.root.name}-damaged")
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(OSError):
            damaged.root.rename(aside)


def _taken(source: RunFolder, dest: RunFolder) -> RunFolder:
    """The copy at `source`; read once more where it seems damaged, since Drive also errs in reading."""
    try:
        return _read(source, dest)
    except ContractError:
        return _read(source, dest)


def _read(source: RunFolder, dest: RunFolder) -> RunFolder:
    shutil.rmtree(dest.root, ignore_errors=True)
    files, has_list = carried(source), source.manifest.is_file()
    for path in [*files, *([source.manifest] if has_list else [])]:
        copy_patiently(path, dest.root / path.relative_to(source.root))
    if has_list:
        archive.check_files(dest, [dest.root / path.relative_to(source.root) for path in files])
    return dest


def copy_patiently(source: Path, dest: Path) -> None:
    """Copies a file from Drive, again after each pause while that raises OSError; the last error is raised."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    for pause_s in PAUSES_S:
        try:
            shutil.copyfile(source, dest)
        except OSError:
            time.sleep(pause_s)
        else:
            return
    shutil.copyfile(source, dest)


# == colab_mirror: Keeps what a training reaches on the user's Drive, in the background, and never lets Drive stop

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
        for number, pause_s in enumerate((*PAUSES_S, 0.0)):
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

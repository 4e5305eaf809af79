"""The user's Drive: files are put there whole or not at all, and a leg is taken back from its newest whole copy.

Drive is slow, drops out, fills up and forgets. So everything is copied to a temporary name, read back, and renamed;
a leg has two places there, ``a`` and ``b``, of which one is always whole.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from boneage_trainer import archive, colab_google
from boneage_trainer.contract import ContractError, RunFolder, parse_object, sha256_of

SLOTS = ("a", "b")
PAUSES_S = (1.0, 4.0, 15.0)
"""Between tries. Where all fail, the next epoch tries again."""


class Drive:
    """The user's Drive, mounted at `point`."""

    def __init__(self, point: Path) -> None:
        self.point, self.my = point, point / "MyDrive"

    def mount(self, again: bool = False) -> None:
        """Raises OSError where it cannot be."""
        colab_google.mount(self.point, again)
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

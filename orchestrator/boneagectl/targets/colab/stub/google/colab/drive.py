"""Drive: a folder of this computer, seen through a mount that fails as STUB_DRIVE_FAULT says.

``every:3`` every third write (a file opened for writing, or renamed) fails · ``gone:7`` after seven writes the mount is
lost permanently · ``drop:7`` it is lost once, until it is mounted again · ``slow:0.5`` each write takes half a second
longer · ``full`` no file can be opened for writing · ``rename`` nothing can be renamed · ``torn`` a file loses its
second half when it is renamed · ``dead:4`` from the fourth write on every one fails, counted from when the fault was
set · ``refused`` it cannot be mounted.

The faults come from an audit hook, which sees each file that Python opens or renames: however the code under test
writes, it meets them as it would those of a real mount.
"""

import errno
import os
import sys
import time
from pathlib import Path
from typing import Any

_point = ""
_writes = 0
_dropped = False
_since: dict[str, int] = {}


def mount(mountpoint: str, force_remount: bool = False) -> None:
    global _point, _writes, _dropped
    kind, number = _fault()
    if kind == "refused" or (kind == "gone" and _writes > number):
        raise ValueError("mount failed")
    point = Path(mountpoint)
    if (point / "MyDrive").is_symlink() and not force_remount:
        return
    if point.is_dir() and any(path.name != "MyDrive" for path in point.iterdir()):
        raise ValueError("Mountpoint must not already contain files")
    point.mkdir(parents=True, exist_ok=True)
    Path(os.environ["STUB_DRIVE"]).mkdir(parents=True, exist_ok=True)
    _point = str(point.absolute())
    _link(present=True)
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked.append(True)


def flush_and_unmount() -> None:
    if _fault()[0] == "gone":
        raise ValueError("flush_and_unmount failed")
    _link(present=False)


_hooked: list[bool] = []


def _fault() -> tuple[str, float]:
    kind, _, number = os.environ.get("STUB_DRIVE_FAULT", "").partition(":")
    return kind, float(number or 0)


def _link(present: bool) -> None:
    link = Path(_point) / "MyDrive"
    link.unlink(missing_ok=True)
    if present:
        link.symlink_to(Path(os.environ["STUB_DRIVE"]).absolute())


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        path, mode, flags = arguments
        is_write = any(letter in (mode or "") for letter in "wax+") or (mode is None and flags & os.O_ACCMODE)
    elif event == "os.rename":
        path, is_write = arguments[1], True
    else:
        return
    if is_write and isinstance(path, (str, bytes)) and _point and os.fsdecode(path).startswith(f"{_point}/MyDrive"):
        _fail(event, arguments)


def _fail(event: str, arguments: tuple[Any, ...]) -> None:
    global _writes, _dropped
    kind, number = _fault()
    _writes += 1
    if kind == "slow":
        time.sleep(number)
    elif kind == "every" and _writes % number == 0:
        raise OSError(errno.EIO, "Input/output error")
    elif kind == "full" and event == "open":
        raise OSError(errno.ENOSPC, "No space left on device")
    elif kind == "rename" and event == "os.rename":
        raise OSError(errno.EIO, "Input/output error")
    elif kind == "torn" and event == "os.rename":
        os.truncate(arguments[0], os.path.getsize(arguments[0]) // 2)  # noqa: PTH202
    elif kind == "dead" and _writes - _since.setdefault(f"{kind}:{number}", _writes) >= number - 1:
        raise OSError(errno.EIO, "Input/output error")
    elif (kind == "gone" and _writes > number) or (kind == "drop" and _writes > number and not _dropped):
        _dropped = True
        _link(present=False)
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

"""IPython runs this as a kernel starts: /content is the machine's folder, `sys.executable` the given interpreter.

Only paths that Python itself opens are led there; a program that the kernel starts sees this machine's disk.
"""

import builtins
import functools
import io
import os
import sys
from collections.abc import Callable
from typing import Any

_PATHS = ("access", "chdir", "chmod", "link", "listdir", "lstat", "mkdir", "open", "readlink", "remove", "rename",
          "replace", "rmdir", "scandir", "stat", "statvfs", "symlink", "unlink", "utime")  # fmt: skip
_ABILITIES = (os.supports_fd, os.supports_dir_fd, os.supports_follow_symlinks, os.supports_effective_ids)


def _led(value: Any, root: str = os.environ["BONEAGECTL_ROOT"]) -> Any:
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, str) and (path == "/content" or path.startswith("/content/")):
        return root + path.removeprefix("/content")
    return value


def _leading(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        return function(*map(_led, given), **{name: _led(value) for name, value in named.items()})

    for ability in _ABILITIES:
        if function in ability:
            ability.add(call)  # shutil asks there
    return call


for _name in _PATHS:
    setattr(os, _name, _leading(getattr(os, _name)))
open = builtins.open = io.open = _leading(builtins.open)  # IPython gives cells an `open` of its own
sys.executable = os.environ["BONEAGE_COLAB_PYTHON"]

"""Programs that one process runs for another, one at a time: signals passed on, and an end to each."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple


class Ended(NamedTuple):
    """How a program ended: its exit code, negative for a signal, and that in words."""

    code: int
    words: str


class Children:
    """Runs programs; SIGTERM and SIGINT that come to this process go on to the one that runs.

    As a context it gives the signals back to whoever had them: a notebook's kernel lives on.
    """

    def __init__(self) -> None:
        self.signal = 0
        """The last signal that came, or 0."""
        self._child: subprocess.Popen[bytes] | None = None
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, limit_s: float, merged: bool = False
    ) -> Ended:
        """Runs `command` in `folder` until it ends, its words going where ours go; `merged`: all to stdout.

        It is killed after `limit_s`. Once a signal has come, nothing is started any more.

        Raises:
            OSError: it cannot be started.
        """
        if self.signal:
            return Ended(-self.signal, f"not started after {_name(self.signal)}")
        sys.stdout.flush()
        child = self._start(command, environment, folder, None, subprocess.STDOUT if merged else None)
        try:
            code = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            return Ended(child.wait(), _too_long(limit_s))
        return Ended(code, _words(code))

    def listen(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, limit_s: float,
        heard: Callable[[str], None],
    ) -> Ended:  # fmt: skip
        """As `run`, but each line of its words, errors among them, goes to `heard`."""
        if self.signal:
            return Ended(-self.signal, f"not started after {_name(self.signal)}")
        child = self._start(command, environment, folder, subprocess.PIPE, subprocess.STDOUT)
        too_long = threading.Event()

        def end() -> None:
            too_long.set()
            child.kill()

        timer = threading.Timer(limit_s, end)
        timer.start()
        with child:
            try:
                for line in child.stdout or ():
                    heard(line.decode(errors="replace").rstrip("\r\n"))
                code = child.wait()
            finally:
                timer.cancel()
                child.kill()  # where `heard` raised; nothing where it has ended
        return Ended(code, _too_long(limit_s) if too_long.is_set() else _words(code))

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, out: int | None, errors: int | None
    ) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
        )
        self._pass_on()  # a signal that came before there was a child to have it
        return self._child

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._pass_on()

    def _pass_on(self) -> None:
        if self.signal and self._child:
            self._child.send_signal(self.signal)


def _too_long(limit_s: float) -> str:
    return f"killed: it had not ended after {limit_s:.0f} s"


def _words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed: out of memory, most likely"
    return f"ended by {_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _name(number: int) -> str:
    return signal.Signals(number).name

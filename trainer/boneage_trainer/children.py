"""Programs that one process runs for another, one at a time: signals passed on, and an end to each."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple


class Ended(NamedTuple):
    """How a program ended: its exit code, negative for a signal, and that in words."""

    code: int
    words: str


class Children:
    """Runs programs; SIGTERM and SIGINT that come to this process go on to the one that runs."""

    def __init__(self) -> None:
        self.signal = 0
        """The last signal that came, or 0."""
        self._child: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

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
        self._child = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT if merged else None
        )
        self._pass_on()  # a signal that came before there was a child to have it
        try:
            code = self._child.wait(limit_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return Ended(self._child.wait(), f"killed: it had not ended after {limit_s:.0f} s")
        return Ended(code, _words(code))

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._pass_on()

    def _pass_on(self) -> None:
        if self.signal and self._child:
            self._child.send_signal(self.signal)


def _words(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed: out of memory, most likely"
    return f"ended by {_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _name(number: int) -> str:
    return signal.Signals(number).name

"""Runs the trainer's programs one at a time, each with a time limit; signals to this process are passed on."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple


class ProcessResult(NamedTuple):
    """How a program ended: its exit code, negative for a signal, and a description of it."""

    code: int
    description: str


class SubprocessRunner:
    """Runs programs; SIGTERM and SIGINT that arrive here are passed on to the one that runs.

    As a context manager it restores the signal handlers: a notebook's kernel lives on.
    """

    def __init__(self) -> None:
        self.signal = 0
        """The last signal that arrived, or 0."""
        self._child: subprocess.Popen[bytes] | None = None
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}

    def __enter__(self) -> SubprocessRunner:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, limit_s: float, merged: bool = False
    ) -> ProcessResult:
        """Runs `command` in `folder` until it ends. Its output goes where ours goes; `merged`: all of it to stdout.

        It is killed after `limit_s` seconds. After a signal nothing is started any more.

        Raises:
            OSError: it cannot be started.
        """
        if self.signal:
            return self._not_started()
        sys.stdout.flush()
        child = self._start(command, environment, folder, None, subprocess.STDOUT if merged else None)
        try:
            code = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            return ProcessResult(child.wait(), _timeout_text(limit_s))
        return ProcessResult(code, _exit_text(code))

    def listen(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, limit_s: float,
        on_line: Callable[[str], None],
    ) -> ProcessResult:  # fmt: skip
        """As `run`, but calls `on_line` with each line of its output and errors."""
        if self.signal:
            return self._not_started()
        child = self._start(command, environment, folder, subprocess.PIPE, subprocess.STDOUT)
        has_timed_out = threading.Event()

        def end() -> None:
            has_timed_out.set()
            child.kill()

        timer = threading.Timer(limit_s, end)
        timer.start()
        with child:
            try:
                for line in child.stdout or ():
                    on_line(line.decode(errors="replace").rstrip("\r\n"))
                code = child.wait()
            finally:
                timer.cancel()
                child.kill()  # if `on_line` raised; without effect on a program that has ended
        return ProcessResult(code, _timeout_text(limit_s) if has_timed_out.is_set() else _exit_text(code))

    def _not_started(self) -> ProcessResult:
        return ProcessResult(-self.signal, f"not started after {signal.Signals(self.signal).name}")

    def _start(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, out: int | None, errors: int | None
    ) -> subprocess.Popen[bytes]:
        self._child = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=errors
        )
        self._pass_on()  # a signal that arrived before there was a child to receive it
        return self._child

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._pass_on()

    def _pass_on(self) -> None:
        if self.signal and self._child:
            self._child.send_signal(self.signal)


def _timeout_text(limit_s: float) -> str:
    return f"killed: still running after {limit_s:.0f} s"


def _exit_text(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed, most likely out of memory"
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

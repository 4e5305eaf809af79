"""One leg as the outside sees it: ``state.json``, signals, the stop request and the deadline.

Standard library only: it stands before TensorFlow is imported, so that a stop in those first seconds
ends as "paused" like any other.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

from boneage_trainer.contract import SCHEMA, RunFolder, write_json, write_manifest

_CHECK_EVERY_S = 0.2
EXIT_HARD_LIMIT = 4


class Stopped(Exception):
    """The leg should save and end; the message is the reason."""


class Session:
    """Keeps `folder`'s state up to date and says when to stop.

    `time_limit_s` counts from the start of the process. Two rings: the loop stops itself early enough
    to save (`check`, `fits`), and at the limit itself a watchdog ends the process, whatever it does.
    """

    def __init__(self, folder: RunFolder, leg: str, time_limit_s: float | None) -> None:
        self.folder = folder
        self.leg = leg
        self.time_limit_s = time_limit_s
        self.started_s = time.time()
        self.epoch = 0
        self.epochs = 0
        self._clock_s = time.monotonic()
        self._signal = ""
        self._next_check_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._clock_s

    def begin(self) -> None:
        """Notes that the leg runs, and listens from here on."""
        self.folder.root.mkdir(parents=True, exist_ok=True)
        self.folder.stop_request.unlink(missing_ok=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)
        self.note("running", "starting")
        if self.time_limit_s:
            threading.Thread(target=self._end_at_limit, args=(self.time_limit_s,), daemon=True).start()

    def note(self, state: str, reason: str = "") -> None:
        """Writes ``state.json``."""
        write_json(self.folder.state, {
            "schema": SCHEMA, "state": state, "reason": reason, "epoch": self.epoch, "epochs": self.epochs,
            "pid": os.getpid(), "leg": self.leg, "started_s": round(self.started_s, 3),
            "updated_s": round(time.time(), 3), "elapsed_s": round(self.elapsed_s, 3),
        })  # fmt: skip

    def end(self, state: str, reason: str = "") -> None:
        """The last note, and the manifest of what is left behind."""
        self.note(state, reason)
        write_manifest(self.folder)

    def check(self) -> None:
        """Raises Stopped where somebody asked for it or the time is up; cheap enough for every batch."""
        if self._signal:
            raise Stopped(self._signal)
        now_s = time.monotonic()
        if now_s < self._next_check_s:
            return
        self._next_check_s = now_s + _CHECK_EVERY_S
        if self.folder.stop_request.exists():
            raise Stopped("stop requested")
        if not self.fits(0):
            raise Stopped("time limit")

    def fits(self, needed_s: float) -> bool:
        """Whether `needed_s` more seconds leave the margin that saving takes."""
        if not self.time_limit_s:
            return True
        margin_s = min(60.0, 0.1 * self.time_limit_s)
        return self.elapsed_s + needed_s + margin_s <= self.time_limit_s

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self._signal = f"signal {signal.Signals(number).name}"

    def _end_at_limit(self, limit_s: float) -> None:
        """The last ring: a training that hangs must not cost more than was booked."""
        time.sleep(max(0.0, limit_s - self.elapsed_s))
        print(
            "error: ended by force at the time limit; the last epoch's checkpoint stands", file=sys.stderr, flush=True
        )
        try:
            self.note("paused", "time limit, by force")
        finally:
            os._exit(EXIT_HARD_LIMIT)

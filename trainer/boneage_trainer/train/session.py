"""One leg as others see it: ``state.json``, signals, the stop request and the time limit.

Standard library only: a session starts before TensorFlow is imported, so that a stop in those first
seconds ends as "paused" like any other.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

from boneage_trainer.contract import SCHEMA, ContractError, RunFolder, parse_object, write_json, write_manifest
from boneage_trainer.platforms.detect import platform_limit_s

_CHECK_EVERY_S = 0.2
EXIT_HARD_LIMIT = 4


class TrainingStopped(Exception):
    """The leg should save and end; the message is the reason."""


def read_first_start(folder: RunFolder, leg: str) -> float | None:
    """When `leg` first started in `folder` (Unix time), or None: its time limit covers all its processes together."""
    with suppress(OSError, ContractError):
        state = parse_object(folder.state.read_text(encoding="utf-8"), folder.state.name)
        if leg and state.get("leg") == leg and isinstance(state.get("started_s"), int | float):
            return float(state["started_s"])
    return None


class TrainingSession:
    """Keeps `folder`'s state up to date and says when to stop.

    `time_limit_s` counts from the start of the leg: the process, or the first one where a preempted node
    starts the same leg again in the same folder. It is enforced twice: the loop stops early enough to save
    (`raise_if_stopped`, `exceeded_limit`), and at the limit itself a watchdog ends the process, whatever it does.
    Where the platform ends the session earlier (Kaggle, Colab, Slurm), that is the loop's limit.
    """

    def __init__(self, folder: RunFolder, leg: str, time_limit_s: float | None) -> None:
        self.folder, self.leg, self.time_limit_s = folder, leg, time_limit_s
        self.started_s = read_first_start(folder, leg) or time.time()
        self.epoch = self.epochs = 0
        self._clock_s = time.monotonic() - max(0.0, time.time() - self.started_s)
        self._limits = [(limit_s, name) for limit_s, name in ((time_limit_s, "time limit"), platform_limit_s())
                        if limit_s is not None]  # fmt: skip
        self._signal = ""
        self._next_check_s = 0.0

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._clock_s

    def start(self) -> None:
        """Writes that the leg runs, handles signals from here on, and starts the watchdog."""
        self.folder.root.mkdir(parents=True, exist_ok=True)
        self.folder.stop_request.unlink(missing_ok=True)
        for temporary in self.folder.root.rglob(".*.tmp"):  # of a process that was killed while it wrote
            temporary.unlink(missing_ok=True)
        self.handle_signals()
        self.write_state("running", "starting")
        if self.time_limit_s:
            threading.Thread(target=self._end_at_limit, args=(self.time_limit_s,), daemon=True).start()

    def handle_signals(self) -> None:
        """Makes SIGTERM and SIGINT stop requests; called again after TensorFlow, whose clusters replace handlers."""

        def request_stop(number: int, _frame: FrameType | None) -> None:
            self._signal = f"signal {signal.Signals(number).name}"

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, request_stop)

    def write_state(self, state: str, reason: str = "") -> None:
        """Writes ``state.json``."""
        write_json(self.folder.state, {
            "schema": SCHEMA, "state": state, "reason": reason, "epoch": self.epoch, "epochs": self.epochs,
            "pid": os.getpid(), "leg": self.leg, "started_s": round(self.started_s, 3),
            "updated_s": round(time.time(), 3), "elapsed_s": round(self.elapsed_s, 3),
        })  # fmt: skip

    def finish(self, state: str, reason: str = "") -> None:
        """Writes the last state, and the manifest of the files the leg leaves."""
        self.write_state(state, reason)
        write_manifest(self.folder)

    def stop_reason(self) -> str:
        """Why to stop now, or an empty string; cheap enough to call for every batch."""
        now_s = time.monotonic()
        if self._signal or now_s < self._next_check_s:
            return self._signal
        self._next_check_s = now_s + _CHECK_EVERY_S
        return "stop requested" if self.folder.stop_request.exists() else self.exceeded_limit(0)

    def raise_if_stopped(self) -> None:
        """Raises TrainingStopped where a stop was requested or time is up."""
        if reason := self.stop_reason():
            raise TrainingStopped(reason)

    def exceeded_limit(self, needed_s: float) -> str:
        """The limit that `needed_s` more seconds, and the margin for saving, would exceed; or an empty string."""
        for limit_s, name in self._limits:
            margin_s = min(60.0, 0.1 * limit_s)
            if self.elapsed_s + needed_s + margin_s > limit_s:
                return name
        return ""

    def _end_at_limit(self, limit_s: float) -> None:
        """The watchdog: a process that hangs must not cost more than was reserved."""
        time.sleep(max(0.0, limit_s - self.elapsed_s))
        print("error: terminated at the time limit; the last epoch's checkpoint is kept", file=sys.stderr, flush=True)
        try:
            self.write_state("paused", "time limit, terminated")
        finally:
            os._exit(EXIT_HARD_LIMIT)

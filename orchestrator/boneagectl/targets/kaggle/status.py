"""Observations of a leg: from Kaggle's session state, and from what the kernel's log tells."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from boneage_trainer.contract import parse_sentinel, parse_state
from boneagectl.models import LegState, Observation

ENDED = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")
_TIME_LIMIT_TEXT = "execution duration"
_MEMORY_TEXT = "more memory"
_END = "END_OF_LOG"


# -------------------------------------------------------------------------------------- observation
def observe_running(status: str, log: KernelLog) -> Observation:
    """A session that is not over."""
    if status == "QUEUED":
        return Observation(LegState.QUEUED, "waiting for a machine")
    elapsed_s = max(0, round(time.time() - log.started_s)) if log.started_s else 0
    return _observation(LegState.RUNNING, "", elapsed_s, log)


def observe_ended(status: str, failure: str, log: KernelLog) -> Observation:
    """A session that is over; the reason is ours, Kaggle's time limit, memory, an error, or none given."""
    state, reason = _outcome(status, failure, log)
    return _observation(state, reason, _elapsed_s(log), log)


def observe_deleted(log: KernelLog | None, elapsed_s: int | None) -> Observation:
    """A kernel that does not exist any more: stopped here, which saved its `log`, or deleted on Kaggle."""
    if log is None:
        return Observation(LegState.LOST, "its kernel was deleted on Kaggle", elapsed_s=None)
    return _observation(LegState.LOST, "stopped by deleting its kernel; its files are lost", elapsed_s, log)


def _outcome(status: str, failure: str, log: KernelLog) -> tuple[LegState, str]:
    ended = log.state.get("state")
    if status == "COMPLETE":
        states = {"complete": LegState.COMPLETE, "paused": LegState.PAUSED}
        if ended in states:
            return states[ended], str(log.state.get("reason", ""))
        return LegState.FAILED, "it ended without a final state; see its log"
    if _TIME_LIMIT_TEXT in failure:
        return LegState.LOST, "Kaggle ended the session at its time limit"
    if status == "CANCEL_ACKNOWLEDGED":
        return LegState.LOST, f"cancelled by Kaggle: {failure or 'it gave no reason'}"
    if _MEMORY_TEXT in failure:
        return LegState.FAILED, "out of memory: set a smaller train.batch_size, or a pack of smaller images"
    if ended == "failed":
        reason = str(log.state.get("reason", ""))
        is_from_trainer = "pid" in log.state  # else from the session, which does not know the trainer's message
        return LegState.FAILED, reason if is_from_trainer or not log.last_error else f"{reason}: {log.last_error}"
    return LegState.FAILED, log.last_error or failure or "it ended with an error; see its log"


def _elapsed_s(log: KernelLog) -> int | None:
    """By the script's own clock, else by the log's; None without either."""
    updated_s = log.state.get("updated_s")
    if log.started_s and isinstance(updated_s, int | float) and updated_s > log.started_s:
        return round(updated_s - log.started_s)
    return round(log.last_s) if log.last_s else None


def _observation(state: LegState, reason: str, elapsed_s: int | None, log: KernelLog) -> Observation:
    newest = log.metrics[-1] if log.metrics else None
    epoch = int(newest["epoch"]) if newest else 0
    return Observation(state, reason, epoch, int(log.state.get("epochs") or 0), elapsed_s, 0, newest)


# ---------------------------------------------------------------------------------------------- log
def read_events(response: Any) -> Iterator[dict[str, Any]]:
    """The log's events: server-sent while the session runs, one JSON array when it is over."""
    if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
        yield from parse_events(response.text)
        return
    rest = b""
    while piece := response.raw.read1(65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.decode("utf-8", "replace").strip().removeprefix("data:").strip()
            if data == _END:
                return
            yield from parse_events(data)


def parse_events(text: str) -> list[dict[str, Any]]:
    """The events in `text`, a JSON array or a single event; any other text is one event."""
    if not text.strip():
        return []
    try:
        value = json.loads(text)
    except ValueError:
        return [{"stream_name": "stdout", "data": text}]
    return [event for event in (value if isinstance(value, list) else [value]) if isinstance(event, dict)]


def join_lines(events: Iterable[dict[str, Any]], log: KernelLog | None = None) -> Iterator[str]:
    """Whole lines from events with pieces of them.

    Each line is added to `log`, with it also a last one without its line break.
    """
    rests: dict[str, str] = {}
    for event in events:
        stream = str(event.get("stream_name", ""))
        *lines, rests[stream] = (rests.get(stream, "") + str(event.get("data") or "")).split("\n")
        for line in lines:
            if log:
                log.add_line(line, event)
            yield line
    if log:
        for rest in filter(None, rests.values()):
            log.add_line(rest, {})
            yield rest


@dataclass(slots=True)
class KernelLog:
    """A log with what its lines tell: the newest state, every epoch's metrics, the last line on stderr."""

    lines: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    started_s: float | None = None
    last_s: float = 0.0
    last_error: str = ""

    @classmethod
    def from_events(cls, events: Iterable[dict[str, Any]]) -> KernelLog:
        log = cls()
        for _ in join_lines(events, log):
            pass
        return log

    def add_line(self, line: str, event: dict[str, Any]) -> None:
        self.lines.append(line)
        time_s = event.get("time")
        self.last_s = max(self.last_s, time_s) if isinstance(time_s, int | float) else self.last_s
        if metrics := parse_sentinel(line):
            self.metrics.append(metrics)
        elif state := parse_state(line):
            self.state = state
            self.started_s = self.started_s or state.get("started_s")
        elif event.get("stream_name") == "stderr" and line.strip():
            self.last_error = line.strip()

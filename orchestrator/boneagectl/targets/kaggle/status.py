"""From what Kaggle says of a session, and what its log tells, to a snapshot of the leg."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from boneage_trainer.contract import parse_sentinel, parse_state
from boneagectl.models import LegState, Observation

ENDED = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")
_LIMIT_WORDS = "execution duration"
_MEMORY_WORDS = "more memory"


def observe_running(status: str, log: KernelLog) -> Observation:
    """A session that is not over."""
    if status == "QUEUED":
        return Observation(LegState.QUEUED, "waiting for a machine")
    elapsed_s = max(0, round(time.time() - log.started_s)) if log.started_s else 0
    return _with_epoch(Observation(LegState.RUNNING, elapsed_s=elapsed_s), log)


def observe_ended(status: str, failure: str, log: KernelLog) -> Observation:
    """A session that is over, with the reason told apart: ours, Kaggle's limit, memory, an error, or none given."""
    state, reason = _outcome(status, failure, log)
    return _with_epoch(Observation(state, reason, elapsed_s=_elapsed_s(log)), log)


def observe_deleted(log: KernelLog | None, elapsed_s: int | None) -> Observation:
    """A kernel that is not there any more: stopped by us, who kept its `log`, or deleted by somebody."""
    if log is None:
        return Observation(LegState.LOST, "its kernel was deleted on Kaggle", elapsed_s=None)
    reason = "stopped by deleting its kernel; Kaggle keeps nothing of it"
    return _with_epoch(Observation(LegState.LOST, reason, elapsed_s=elapsed_s), log)


def _outcome(status: str, failure: str, log: KernelLog) -> tuple[LegState, str]:
    ended = log.state.get("state")
    if status == "COMPLETE":
        states = {"complete": LegState.COMPLETE, "paused": LegState.PAUSED}
        if ended in states:
            return states[ended], str(log.state.get("reason", ""))
        return LegState.FAILED, "it ended without saying how; see its log"
    if _LIMIT_WORDS in failure:
        return LegState.LOST, "Kaggle ended the session at its time limit"
    if status == "CANCEL_ACKNOWLEDGED":
        return LegState.LOST, f"cancelled by Kaggle: {failure or 'it gave no reason'}"
    if _MEMORY_WORDS in failure:
        return LegState.FAILED, "out of memory: set a smaller train.batch_size, or a pack of smaller images"
    if ended == "failed":
        reason = str(log.state.get("reason", ""))
        is_trainer_s = "pid" in log.state  # else the session's own, which does not know what the trainer said
        return LegState.FAILED, reason if is_trainer_s or not log.last_words else f"{reason}: {log.last_words}"
    return LegState.FAILED, log.last_words or failure or "it ended with an error; see its log"


def _elapsed_s(log: KernelLog) -> int | None:
    """By the script's own clock, else by the log's; None where neither says anything."""
    updated_s = log.state.get("updated_s")
    if log.started_s and isinstance(updated_s, int | float) and updated_s > log.started_s:
        return round(updated_s - log.started_s)
    return round(log.last_s) if log.last_s else None


def _with_epoch(seen: Observation, log: KernelLog) -> Observation:
    newest = log.metrics[-1] if log.metrics else None
    epochs = int(log.state.get("epochs") or 0)
    return Observation(seen.state, seen.reason, log.epoch, epochs, seen.elapsed_s, 0, newest)


# == log: A kernel's log: events as Kaggle streams or keeps them, lines as the script printed them, and what these tell.

_END = "END_OF_LOG"


def read_events(answer: Any) -> Iterator[dict[str, Any]]:
    """Server-sent events while the session runs; one JSON array when it is over."""
    if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
        yield from parse_events(answer.text)
        return
    rest = b""
    while piece := answer.raw.read1(65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.decode("utf-8", "replace").strip().removeprefix("data:").strip()
            if data == _END:
                return
            yield from parse_events(data)


def parse_events(text: str) -> list[dict[str, Any]]:
    """The events in `text`, an array or a single one as JSON; what is neither is one event of text."""
    if not text.strip():
        return []
    try:
        said = json.loads(text)
    except ValueError:
        return [{"stream_name": "stdout", "data": text}]
    return [one for one in (said if isinstance(said, list) else [said]) if isinstance(one, dict)]


def join_lines(events: Iterable[dict[str, Any]], log: KernelLog | None = None) -> Iterator[str]:
    """Whole lines, whatever pieces they came in; with `log`, which is told of each, also a last one without its end."""
    rests: dict[str, str] = {}
    for event in events:
        stream = str(event.get("stream_name", ""))
        *lines, rests[stream] = (rests.get(stream, "") + str(event.get("data") or "")).split("\n")
        for line in lines:
            yield _told(log, line, event)
    if log:
        yield from (_told(log, rest, {}) for rest in rests.values() if rest)


def _told(log: KernelLog | None, line: str, event: dict[str, Any]) -> str:
    if log:
        log.add_line(line, event)
    return line


@dataclass(slots=True)
class KernelLog:
    """What the lines so far tell: the newest state and epoch, and the last words on stderr."""

    lines: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    started_s: float | None = None
    last_s: float = 0.0
    last_words: str = ""

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
            self.last_words = line.strip()

    @property
    def epoch(self) -> int:
        return int(self.metrics[-1]["epoch"]) if self.metrics else 0

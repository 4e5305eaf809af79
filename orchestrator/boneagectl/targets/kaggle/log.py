"""A kernel's log: events as Kaggle streams or keeps them, lines as the script printed them, and what these tell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from boneage_trainer.contract import parse_sentinel, parse_state

_END = "END_OF_LOG"


def events_of(answer: Any) -> Iterator[dict[str, Any]]:
    """Server-sent events while the session runs; one JSON array when it is over."""
    if not answer.headers.get("Content-Type", "").startswith("text/event-stream"):
        yield from events_in(answer.text)
        return
    rest = b""
    while piece := answer.raw.read1(65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            data = line.decode("utf-8", "replace").strip().removeprefix("data:").strip()
            if data == _END:
                return
            yield from events_in(data)


def events_in(text: str) -> list[dict[str, Any]]:
    """The events in `text`, an array or a single one as JSON; what is neither is one event of text."""
    if not text.strip():
        return []
    try:
        said = json.loads(text)
    except ValueError:
        return [{"stream_name": "stdout", "data": text}]
    return [one for one in (said if isinstance(said, list) else [said]) if isinstance(one, dict)]


def lines_of(events: Iterable[dict[str, Any]], log: Log | None = None) -> Iterator[str]:
    """Whole lines, whatever pieces they came in; with `log`, which is told of each, also a last one without its end."""
    rests: dict[str, str] = {}
    for event in events:
        stream = str(event.get("stream_name", ""))
        *lines, rests[stream] = (rests.get(stream, "") + str(event.get("data") or "")).split("\n")
        for line in lines:
            yield _told(log, line, event)
    if log:
        yield from (_told(log, rest, {}) for rest in rests.values() if rest)


def _told(log: Log | None, line: str, event: dict[str, Any]) -> str:
    if log:
        log.hear(line, event)
    return line


@dataclass(slots=True)
class Log:
    """What the lines so far tell: the newest state and epoch, and the last words on stderr."""

    lines: list[str] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    started_s: float | None = None
    last_s: float = 0.0
    last_words: str = ""

    @classmethod
    def read(cls, events: Iterable[dict[str, Any]]) -> Log:
        log = cls()
        for _ in lines_of(events, log):
            pass
        return log

    def hear(self, line: str, event: dict[str, Any]) -> None:
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

"""From what Azure says of a job, and what the trainer has written, to a snapshot of the leg."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from boneagectl import units
from boneagectl.records import LegState, Snapshot

WAITING = ("NotStarted", "Starting", "Provisioning", "Preparing", "Queued")
OVER = ("Completed", "Failed", "Canceled")
_STATES = {state.value: state for state in LegState}


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a job: as Azure tells it, what the trainer last wrote, and for one that is over its history.

    `words` are the last of a job that wrote no state, or why one that waits gets no node. `history` may be
    empty: nobody answered.
    """

    job: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    metrics: str = ""
    words: str = ""
    history: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.job["properties"]["status"])


def snapshot(seen: Seen, rate_usd_micro: int, unseen_s: int) -> Snapshot:
    """`rate_usd_micro` is an hour of all nodes; `unseen_s` is what they are billed before and after the job."""
    leg, reason = _judged(seen)
    elapsed_s = _elapsed_s(seen, leg.is_over)
    is_billed = elapsed_s is not None and leg is not LegState.QUEUED
    spent = units.cost_usd_micro(rate_usd_micro, elapsed_s + unseen_s) if elapsed_s is not None and is_billed else 0
    epoch, epochs = (int(seen.state.get(key) or 0) for key in ("epoch", "epochs"))
    return Snapshot(leg, reason, epoch, epochs, elapsed_s, spent, _last(seen.metrics))


def gone() -> Snapshot:
    return Snapshot(LegState.LOST, "the job is not in the workspace any more", elapsed_s=None)


def _last(metrics: str) -> dict[str, Any] | None:
    """The newest whole line: the last may be half written."""
    for line in reversed(metrics.splitlines()):
        with suppress(ValueError):
            return dict(json.loads(line))
    return None


def _judged(seen: Seen) -> tuple[LegState, str]:
    status, said, reason = seen.status, _STATES.get(str(seen.state.get("state"))), str(seen.state.get("reason", ""))
    if status in WAITING:
        return LegState.QUEUED, f"{status.lower()}: {seen.words}" if seen.words else status.lower()
    if status not in OVER:
        return LegState.RUNNING, "" if status == "Running" else status.lower()
    if said in (LegState.COMPLETE, LegState.PAUSED, LegState.FAILED):
        return said, reason
    error = _error(seen.history)
    if status == "Failed" and not seen.state and (seen.words or "ImageBuild" in error):
        return LegState.FAILED, f"did not start: {seen.words or error}"
    if status == "Canceled":
        return LegState.LOST, "canceled before it could save"
    return LegState.LOST, error or "the node is gone: preempted, or its container was killed"


def _error(history: dict[str, Any]) -> str:
    """What Azure says went wrong: a lost node, a preemption, an image that could not be built."""
    said = (history.get("error") or {}).get("error") or {}
    return ": ".join(str(said[key]) for key in ("code", "message") if said.get(key))[:300]


def _elapsed_s(seen: Seen, is_over: bool) -> int | None:
    """By Azure's clock for a job that is over, else by the trainer's own; None where neither tells.

    A job that is over and has no start in its history never ran.
    """
    if is_over and seen.history:
        start, end = (seen.history.get(key) for key in ("startTimeUtc", "endTimeUtc"))
        if not start:
            return 0
        if end:
            return max(0, round(_time_s(str(end)) - _time_s(str(start))))
    started_s = seen.state.get("started_s")
    if not isinstance(started_s, int | float):
        return None if is_over else 0
    until_s = seen.state["updated_s"] if is_over else time.time()
    return max(0, round(until_s - started_s))


def _time_s(text: str) -> float:
    """Azure writes an offset, a Z or neither."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

"""From what Azure says of a job, and what the trainer has written, to a snapshot of the leg."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from boneagectl import units
from boneagectl.records import LegState, Snapshot

WAITING = ("NotStarted", "Starting", "Provisioning", "Preparing", "Queued")
OVER = ("Completed", "Failed", "Canceled")
_STATES = {state.value: state for state in LegState}


def snapshot(
    job: dict[str, Any], state: dict[str, Any], metrics: str, rate: int, unseen_s: int, words: str
) -> Snapshot:
    """`job` as Azure tells it; `state` and the lines of `metrics` as the trainer last wrote them.

    `rate` is in micro-dollars an hour of all nodes; `unseen_s` is what they are billed before and after the trainer;
    `words` are the last of a job that wrote no state.
    """
    leg, reason = _judged(str(job["properties"]["status"]), state, words)
    elapsed_s, newest = _elapsed_s(state, leg.is_over), _last(metrics)
    spent = units.cost_usd_micro(rate, elapsed_s + unseen_s) if elapsed_s is not None else 0
    epoch = int(state.get("epoch") or 0)
    return Snapshot(leg, reason, epoch, int(state.get("epochs") or 0), elapsed_s, spent, newest)


def gone() -> Snapshot:
    return Snapshot(LegState.LOST, "the job is not in the workspace any more", elapsed_s=None)


def _last(metrics: str) -> dict[str, Any] | None:
    """The newest whole line: the last may be half written."""
    for line in reversed(metrics.splitlines()):
        with suppress(ValueError):
            return dict(json.loads(line))
    return None


def _judged(status: str, state: dict[str, Any], words: str) -> tuple[LegState, str]:
    said, reason = _STATES.get(str(state.get("state"))), str(state.get("reason", ""))
    if status in WAITING:
        return LegState.QUEUED, status.lower()
    if status not in OVER:
        return LegState.RUNNING, "" if status == "Running" else status.lower()
    if said in (LegState.COMPLETE, LegState.PAUSED, LegState.FAILED):
        return said, reason
    if status == "Failed" and not state and words:
        return LegState.FAILED, f"did not start: {words}"
    if status == "Canceled":
        return LegState.LOST, "canceled before it could save"
    return LegState.LOST, "the node is gone: preempted, or its container was killed"


def _elapsed_s(state: dict[str, Any], is_over: bool) -> int | None:
    """By the trainer's own clock; None for a job that is over and never said anything."""
    started_s = state.get("started_s")
    if not isinstance(started_s, int | float):
        return None if is_over else 0
    until_s = state["updated_s"] if is_over else time.time()
    return max(0, round(until_s - started_s))

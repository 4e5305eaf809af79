"""From what Kaggle says of a session, and what its log tells, to a snapshot of the leg."""

from __future__ import annotations

import time

from boneagectl.records import LegState, Snapshot
from boneagectl.targets.kaggle.log import Log

OVER = ("COMPLETE", "ERROR", "CANCEL_ACKNOWLEDGED")
_LIMIT_WORDS = "execution duration"
_MEMORY_WORDS = "more memory"


def while_running(status: str, log: Log) -> Snapshot:
    """A session that is not over."""
    if status == "QUEUED":
        return Snapshot(LegState.QUEUED, "waiting for a machine")
    elapsed_s = max(0, round(time.time() - log.started_s)) if log.started_s else 0
    return _with_epoch(Snapshot(LegState.RUNNING, elapsed_s=elapsed_s), log)


def when_over(status: str, failure: str, log: Log) -> Snapshot:
    """A session that is over, with the reason told apart: ours, Kaggle's limit, memory, an error, or none given."""
    state, reason = _outcome(status, failure, log)
    return _with_epoch(Snapshot(state, reason, elapsed_s=_elapsed_s(log)), log)


def gone(log: Log | None, elapsed_s: int | None) -> Snapshot:
    """A kernel that is not there any more: stopped by us, who kept its `log`, or deleted by somebody."""
    if log is None:
        return Snapshot(LegState.LOST, "its kernel was deleted on Kaggle", elapsed_s=None)
    reason = "stopped by deleting its kernel; Kaggle keeps nothing of it"
    return _with_epoch(Snapshot(LegState.LOST, reason, elapsed_s=elapsed_s), log)


def _outcome(status: str, failure: str, log: Log) -> tuple[LegState, str]:
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


def _elapsed_s(log: Log) -> int | None:
    """By the script's own clock, else by the log's; None where neither says anything."""
    updated_s = log.state.get("updated_s")
    if log.started_s and isinstance(updated_s, int | float) and updated_s > log.started_s:
        return round(updated_s - log.started_s)
    return round(log.last_s) if log.last_s else None


def _with_epoch(seen: Snapshot, log: Log) -> Snapshot:
    newest = log.metrics[-1] if log.metrics else None
    epochs = int(log.state.get("epochs") or 0)
    return Snapshot(seen.state, seen.reason, log.epoch, epochs, seen.elapsed_s, 0, newest)

"""From what Azure says of a job, and what the trainer has written, to a snapshot of the leg."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from boneage_trainer.contract import parse_object
from boneagectl import units
from boneagectl.errors import NotFound, RemoteError
from boneagectl.models import Handle, LegState, Observation
from boneagectl.targets.azure import client
from boneagectl.targets.azure import outputs as blobs

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


def snapshot(seen: Seen, rate_usd_micro: int, unseen_s: int) -> Observation:
    """`rate_usd_micro` is an hour of all nodes; `unseen_s` is what they are billed before and after the job."""
    leg, reason = _judged(seen)
    elapsed_s = _elapsed_s(seen, leg.is_over)
    is_billed = elapsed_s is not None and leg is not LegState.QUEUED
    spent = units.cost_usd_micro(rate_usd_micro, elapsed_s + unseen_s) if elapsed_s is not None and is_billed else 0
    epoch, epochs = (int(seen.state.get(key) or 0) for key in ("epoch", "epochs"))
    return Observation(leg, reason, epoch, epochs, elapsed_s, spent, _last(seen.metrics))


def gone() -> Observation:
    return Observation(LegState.LOST, "the job is not in the workspace any more", elapsed_s=None)


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


# == remote: One job in one workspace, as Azure knows it and as its blobs tell.

SECOND_LOOK_S = 2.0


class Remote:
    """`name` is the leg's id."""

    def __init__(self, arm: client.ArmClient, place: client.Workspace, name: str) -> None:
        self.arm, self.place, self.name = arm, place, name

    @property
    def handle(self) -> Handle:
        return Handle("azure", self.name, f"https://ml.azure.com/runs/{self.name}?wsid={self.place.resource_id}")

    @property
    def _path(self) -> str:
        return f"{self.place.resource_id}/jobs/{self.name}"

    @cached_property
    def outputs(self) -> blobs.Store:
        return blobs.Store(self.arm, self.place, blobs.OUTPUTS)

    @cached_property
    def logs(self) -> blobs.Store:
        return blobs.Store(self.arm, self.place, blobs.LOGS)

    # --------------------------------------------------------------------------------- state
    def job(self) -> dict[str, Any] | None:
        try:
            return self.arm.get(self._path, client.JOBS)
        except NotFound:
            return None

    def look(self) -> Seen | None:
        """None where two looks say that there is no such job: one wrong answer must not end a leg that is billed."""
        job = self.job()
        if job is None:
            time.sleep(SECOND_LOOK_S)
            job = self.job()
        if job is None:
            return None
        status, folder = job["properties"]["status"], blobs.run_of(self.name)
        if status in WAITING:
            return Seen(job, words=self._why_no_node(job))
        state = self._object(f"{folder}state.json")
        metrics = self.outputs.read(f"{folder}metrics.jsonl").decode("utf-8", "replace")
        words = "" if state else self._last_words()
        return Seen(job, state, metrics, words, self._history() if status in OVER else {})

    def _why_no_node(self, job: dict[str, Any]) -> str:
        """What the cluster says of the nodes it cannot have: a quota that is used up lets a job wait for ever."""
        errors = self._cluster(job).get("errors") or []
        said = [(one.get("error") or one) for one in errors if isinstance(one, dict)]
        return "; ".join(str(one.get("message", "")) for one in said)[:300]

    def _object(self, name: str) -> dict[str, Any]:
        text = self.outputs.read(name).decode("utf-8", "replace")
        return parse_object(text, name) if text else {}

    def _last_words(self) -> str:
        text = self.log().decode("utf-8", "replace").strip()
        return text.splitlines()[-1] if text else ""

    def _history(self) -> dict[str, Any]:
        """Start, end and error of the job; nothing where that service does not answer."""
        try:
            return self.arm.get_run_details(self.place, self.name)
        except RemoteError:
            return {}

    def is_over(self) -> bool:
        job = self.job()
        return job is None or job["properties"]["status"] in OVER

    def cancel(self) -> None:
        self.arm.request("POST", f"{self._path}/cancel", client.JOBS)

    def log(self) -> bytes:
        return self.logs.read(blobs.log_of(self.name))

    # --------------------------------------------------------------------------------- nodes
    def idle_nodes(self) -> int:
        """How many nodes of its cluster stand without work: 0 too where the cluster is gone."""
        said = self._cluster(self.job() or {})
        states = said.get("nodeStateCounts") or {}
        busy = sum(int(states.get(key) or 0) for key in ("runningNodeCount", "preparingNodeCount"))
        return max(0, int(said.get("currentNodeCount") or 0) - busy)

    def _cluster(self, job: dict[str, Any]) -> dict[str, Any]:
        """The cluster a job goes to; nothing where it is gone."""
        path = str(job.get("properties", {}).get("computeId") or "")
        try:
            return dict(self.arm.get(path, client.COMPUTES)["properties"]["properties"]) if path else {}
        except NotFound:
            return {}

"""One Azure ML job: what Azure and the trainer report about it, as an observation of the leg."""

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
from boneagectl.targets.azure import client, outputs

WAITING = ("NotStarted", "Starting", "Provisioning", "Preparing", "Queued")
OVER = ("Completed", "Failed", "Canceled")
SECOND_LOOK_S = 2.0
_STATES = {state.value: state for state in LegState}


@dataclass(frozen=True, slots=True)
class JobReport:
    """One look at a job: Azure's description, what the trainer wrote last, and the history of a job that is over.

    `detail` is the last log line of a job that wrote no state, or why a waiting job gets no node. `history` is empty
    where the service did not answer.
    """

    job: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    metrics: str = ""
    detail: str = ""
    history: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        return str(self.job["properties"]["status"])


class AzureJob:
    """A job in a workspace; `name` is the id of its leg."""

    def __init__(self, arm: client.ArmClient, workspace: client.Workspace, name: str) -> None:
        self.arm, self.workspace, self.name = arm, workspace, name
        self._path = f"{workspace.resource_id}/jobs/{name}"

    @property
    def handle(self) -> Handle:
        return Handle("azure", self.name, f"https://ml.azure.com/runs/{self.name}?wsid={self.workspace.resource_id}")

    @cached_property
    def output_store(self) -> outputs.BlobStore:
        return outputs.BlobStore(self.arm, self.workspace, outputs.OUTPUT_STORE)

    @cached_property
    def log_store(self) -> outputs.BlobStore:
        return outputs.BlobStore(self.arm, self.workspace, outputs.LOG_STORE)

    def describe(self) -> dict[str, Any] | None:
        """Azure's description of the job; None where it has no such job."""
        try:
            return self.arm.get(self._path, client.JOBS)
        except NotFound:
            return None

    def report(self) -> JobReport | None:
        """None where two looks find no such job: one wrong answer must not end a leg that is billed."""
        job = self.describe()
        if job is None:
            time.sleep(SECOND_LOOK_S)
            job = self.describe()
        if job is None:
            return None
        status, folder = job["properties"]["status"], outputs.run_folder(self.name)
        if status in WAITING:
            return JobReport(job, detail=self._cluster_errors(job))
        state_text = self.output_store.read_blob(f"{folder}state.json").decode("utf-8", "replace")
        state = parse_object(state_text, "state.json") if state_text else {}
        metrics = self.output_store.read_blob(f"{folder}metrics.jsonl").decode("utf-8", "replace")
        log_lines = [] if state else self.read_log().decode("utf-8", "replace").strip().splitlines()
        history: dict[str, Any] = {}
        if status in OVER:
            with suppress(RemoteError):
                history = self.arm.get_run_details(self.workspace, self.name)
        return JobReport(job, state, metrics, log_lines[-1] if log_lines else "", history)

    def is_over(self) -> bool:
        job = self.describe()
        return job is None or job["properties"]["status"] in OVER

    def cancel(self) -> None:
        self.arm.request("POST", f"{self._path}/cancel", client.JOBS)

    def read_log(self) -> bytes:
        return self.log_store.read_blob(outputs.log_name(self.name))

    # --------------------------------------------------------------------------------- cluster
    def count_idle_nodes(self) -> int:
        """The nodes of the job's cluster that are up without a job; 0 too where the cluster is gone."""
        cluster = self._describe_cluster(self.describe() or {})
        states = cluster.get("nodeStateCounts") or {}
        busy = sum(int(states.get(key) or 0) for key in ("runningNodeCount", "preparingNodeCount"))
        return max(0, int(cluster.get("currentNodeCount") or 0) - busy)

    def _cluster_errors(self, job: dict[str, Any]) -> str:
        """Why the cluster gets no nodes: without quota a job waits for ever."""
        errors = self._describe_cluster(job).get("errors") or []
        details = [(item.get("error") or item) for item in errors if isinstance(item, dict)]
        return "; ".join(str(detail.get("message", "")) for detail in details)[:300]

    def _describe_cluster(self, job: dict[str, Any]) -> dict[str, Any]:
        path = str(job.get("properties", {}).get("computeId") or "")
        try:
            return dict(self.arm.get(path, client.COMPUTES)["properties"]["properties"]) if path else {}
        except NotFound:
            return {}


def observation_from(report: JobReport, rate_usd_micro: int, unseen_s: int) -> Observation:
    """`rate_usd_micro` is an hour of all nodes; `unseen_s` is what they are billed before and after the job."""
    leg, reason = _judge(report)
    elapsed_s = _elapsed_s(report, leg.is_over)
    spent = 0
    if elapsed_s is not None and leg is not LegState.QUEUED:
        spent = units.cost_usd_micro(rate_usd_micro, elapsed_s + unseen_s)
    epoch, epochs = (int(report.state.get(key) or 0) for key in ("epoch", "epochs"))
    return Observation(leg, reason, epoch, epochs, elapsed_s, spent, _last_metrics(report.metrics))


def _last_metrics(text: str) -> dict[str, Any] | None:
    """The newest complete line: the last may be half written."""
    for line in reversed(text.splitlines()):
        with suppress(ValueError):
            return dict(json.loads(line))
    return None


def _judge(report: JobReport) -> tuple[LegState, str]:
    """The leg's state and its reason."""
    status, state = report.status, _STATES.get(str(report.state.get("state")))
    if status in WAITING:
        return LegState.QUEUED, f"{status.lower()}: {report.detail}" if report.detail else status.lower()
    if status not in OVER:
        return LegState.RUNNING, "" if status == "Running" else status.lower()
    if state in (LegState.COMPLETE, LegState.PAUSED, LegState.FAILED):
        return state, str(report.state.get("reason", ""))
    details = (report.history.get("error") or {}).get("error") or {}
    error = ": ".join(str(details[key]) for key in ("code", "message") if details.get(key))[:300]
    if status == "Failed" and not report.state and (report.detail or "ImageBuild" in error):
        return LegState.FAILED, f"did not start: {report.detail or error}"
    if status == "Canceled":
        return LegState.LOST, "canceled before it could save"
    return LegState.LOST, error or "the node is gone: preempted, or its container was killed"


def _elapsed_s(report: JobReport, is_over: bool) -> int | None:
    """By Azure's clock for a job that is over, else by the trainer's; None where neither is known.

    A job that is over and has no start in its history never ran.
    """
    if is_over and report.history:
        start, end = (report.history.get(key) for key in ("startTimeUtc", "endTimeUtc"))
        if not start:
            return 0
        if end:
            return max(0, round(_timestamp(str(end)) - _timestamp(str(start))))
    started_s = report.state.get("started_s")
    if not isinstance(started_s, int | float):
        return None if is_over else 0
    until_s = report.state["updated_s"] if is_over else time.time()
    return max(0, round(until_s - started_s))


def _timestamp(text: str) -> float:
    """Azure writes an offset, a Z or neither; without one it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

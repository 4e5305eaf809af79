"""One job in one workspace, as Azure knows it and as its blobs tell."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from boneage_trainer.contract import parse_object
from boneagectl.errors import MachineError
from boneagectl.records import Handle
from boneagectl.targets.azure import blobs, rest
from boneagectl.targets.azure.watching import OVER, WAITING, Seen

_HISTORY = "v1.0"
_HISTORY_HOST = ".api.azureml.ms"
_WORKSPACES = "2024-10-01"
SECOND_LOOK_S = 2.0


class Remote:
    """`name` is the leg's id."""

    def __init__(self, arm: rest.Arm, place: rest.Place, name: str) -> None:
        self.arm, self.place, self.name = arm, place, name

    @property
    def handle(self) -> Handle:
        return Handle("azure", self.name, f"https://ml.azure.com/runs/{self.name}?wsid={self.place.path}")

    @property
    def _path(self) -> str:
        return f"{self.place.path}/jobs/{self.name}"

    @cached_property
    def outputs(self) -> blobs.Store:
        return blobs.Store(self.arm, self.place, blobs.OUTPUTS)

    @cached_property
    def logs(self) -> blobs.Store:
        return blobs.Store(self.arm, self.place, blobs.LOGS)

    # --------------------------------------------------------------------------------- state
    def job(self) -> dict[str, Any] | None:
        try:
            return self.arm.get(self._path, rest.JOBS)
        except rest.Missing:
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
            said = self.arm.get(self.place.path, _WORKSPACES)
            host = urlsplit(str(said["properties"].get("discoveryUrl"))).hostname or ""
            if not host.endswith(_HISTORY_HOST):  # the token is for nobody else
                return {}
            path = f"/history/v1.0{self.place.path}/runs/{self.name}/details"
            return self.arm.ask("GET", path, _HISTORY, host=f"https://{host}")
        except MachineError:
            return {}

    def is_over(self) -> bool:
        job = self.job()
        return job is None or job["properties"]["status"] in OVER

    def cancel(self) -> None:
        self.arm.ask("POST", f"{self._path}/cancel", rest.JOBS)

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
            return dict(self.arm.get(path, rest.COMPUTES)["properties"]["properties"]) if path else {}
        except rest.Missing:
            return {}

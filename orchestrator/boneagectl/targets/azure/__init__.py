"""The `azure` target: each leg is a command job on an Azure ML cluster that has no node while nothing runs.

The official SDK submits. All else is plain REST and the blob SDK, which start in a fraction of its time and do
not have its faults (see blobs.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, parse_object
from boneagectl.errors import InDoubt, MachineError
from boneagectl.records import (
    Artifacts,
    Bundle,
    Capabilities,
    Checkpoint,
    Finding,
    Handle,
    JobSpec,
    Quota,
    Quote,
    Snapshot,
    Verdict,
)
from boneagectl.targets.azure import (
    blobs,
    checking,
    jobs,
    outputs,
    prices,
    rehearsing,
    rendering,
    rest,
    signin,
    watching,
)

_LOOKS_S = (1.0, 4.0, 10.0)
_FOLLOW_S = 5.0
_STOP_POLL_S = 2.0
_DAILY_USD_MICRO = 330_000
"""The load balancer of a cluster, also without nodes: learn.microsoft.com, concept-plan-manage-cost."""
STARTUP_S = 900
"""Until a node is up, the image pulled and the data mounted; billed like the rest. A guess on the safe side."""


class AzureTarget:
    """`root` keeps refreshed prices."""

    name = "azure"
    capabilities = Capabilities(
        unattended=True,
        can_stop=True,
        billed=True,
        max_session_hours=None,
        live_metrics=True,
        needs_network=True,
        appears_s=600,
        poll_every_s=30.0,
    )

    def __init__(self, root: Path, wishes: rendering.Wishes, stop_grace_s: float = 120) -> None:
        self.root, self.wishes, self.stop_grace_s = root, wishes, stop_grace_s

    @cached_property
    def arm(self) -> rest.Arm:
        return rest.Arm(signin.credential())

    @property
    def place(self) -> rest.Place:
        return rest.Place(self.wishes.subscription, self.wishes.resource_group, self.wishes.workspace)

    @cached_property
    def logs_store(self) -> blobs.Store:
        return blobs.Store(self.arm, self.place, blobs.LOGS)

    @cached_property
    def outputs(self) -> blobs.Store:
        return blobs.Store(self.arm, self.place, blobs.OUTPUTS)

    # -------------------------------------------------------------------------- before the start
    def check(self) -> list[Finding]:
        return checking.findings(lambda: self.arm, self.place, self.wishes)

    def quota(self) -> Quota | None:
        return None

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        return checking.verdicts(self.arm, self.place, self.wishes, self._pack(spec))

    def quote(self, spec: JobSpec) -> Quote:
        """Every node from its start-up to the end of its idle time, and what the workspace costs a day."""
        price, wishes = self._price(), self.wishes
        worst = prices.worst_case(price, wishes.nodes, spec.time_limit_s, wishes.idle_s, STARTUP_S, _DAILY_USD_MICRO)
        return Quote(self.name, spec.time_limit_s, worst, self._rate(), 1, price.source, price.date)

    def _price(self) -> prices.Price:
        return prices.lookup(
            self.wishes.size, self.wishes.region, self.wishes.tier == "low_priority", self.root / "prices.json"
        )

    def _rate(self) -> int:
        return self._price().usd_micro_per_hour * self.wishes.nodes

    def _pack(self, spec: JobSpec) -> str:
        return self.wishes.pack or f"azureml:{rendering.asset_of(spec.data['fingerprint'])}:1"

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        rendering.write(spec, bundle, leg_id, dest, resume, self.wishes)

    def rehearse(self, rendered: Path, place: Path, python: str) -> Iterator[Finding]:
        return rehearsing.rehearse(rendered, place, python)

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """The leg's id is the job's name, so that a second try could only meet the first."""
        if handle := self.find(leg_id):
            return handle
        try:
            jobs.create(self.arm.credential, self.place, rendered)
        except InDoubt as doubt:
            return self._found_after(doubt, leg_id)
        return self._handle(leg_id)

    def _found_after(self, doubt: InDoubt, leg_id: str) -> Handle:
        for pause_s in _LOOKS_S:
            time.sleep(pause_s)
            try:
                if handle := self.find(leg_id):
                    return handle
            except MachineError:
                continue
        raise doubt

    def find(self, leg_id: str) -> Handle | None:
        return self._handle(leg_id) if self._job(leg_id) else None

    def _handle(self, leg_id: str) -> Handle:
        return Handle(self.name, leg_id, f"https://ml.azure.com/runs/{leg_id}?wsid={self.place.path}")

    def _job(self, leg_id: str) -> dict[str, Any] | None:
        try:
            return self.arm.get(f"{self.place.path}/jobs/{leg_id}", rest.JOBS)
        except rest.Missing:
            return None

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Snapshot:
        job = self._job(handle.remote_id)
        if job is None:
            return watching.gone()
        folder = blobs.run_of(handle.remote_id)
        state = self._object(f"{folder}state.json")
        text = self.outputs.read(f"{folder}metrics.jsonl").decode("utf-8", "replace")
        words = "" if state else self._last_words(handle.remote_id)
        return watching.snapshot(job, state, text, self._rate(), STARTUP_S + self.wishes.idle_s, words)

    def _last_words(self, job: str) -> str:
        """What a job printed last that never got as far as to write its state."""
        text = self.logs_store.read(blobs.log_of(job)).decode("utf-8", "replace").strip()
        return text.splitlines()[-1] if text else ""

    def _object(self, name: str) -> dict[str, Any]:
        text = self.outputs.read(name).decode("utf-8", "replace")
        return parse_object(text, name) if text else {}

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        """Reads the blob anew each time: it is some hundred kilobytes, and appended to as it likes."""
        seen = 0
        while True:
            is_over = not follow or self._is_over(handle)
            lines = self.logs_store.read(blobs.log_of(handle.remote_id)).decode("utf-8", "replace").split("\n")
            whole = lines if is_over and lines[-1] else lines[:-1]
            yield from whole[seen:]
            seen = len(whole)
            if is_over:
                return
            time.sleep(_FOLLOW_S)

    def _is_over(self, handle: Handle) -> bool:
        job = self._job(handle.remote_id)
        return job is None or job["properties"]["status"] in watching.OVER

    def stop(self, handle: Handle) -> None:
        """Cancels, which gives the trainer time to save, and waits until the job is over."""
        if self._is_over(handle):
            return
        try:
            self.arm.ask("POST", f"{self.place.path}/jobs/{handle.remote_id}/cancel", rest.JOBS)
        except MachineError:
            if not self._is_over(handle):  # it may have ended meanwhile, and then refuses
                raise
        give_up = time.monotonic() + self.stop_grace_s
        while not self._is_over(handle) and time.monotonic() < give_up:
            time.sleep(_STOP_POLL_S)

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        log = self.logs_store.read(blobs.log_of(handle.remote_id))
        return outputs.bring(self.outputs, blobs.run_of(handle.remote_id), log, RunFolder(dest))

"""The `azure` target: each leg is a command job on an Azure ML cluster that has no node while nothing runs.

The official SDK submits. Everything else goes through azure-core and the blob SDK, which start in a fraction of its
time.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from boneage_trainer.contract import PackFolder, RunFolder, parse_object, write_json
from boneagectl import units
from boneagectl.errors import BoneagectlError, NotFound, ProviderRefused, RemoteError, SubmitUncertain
from boneagectl.models import (
    Artifacts,
    Bill,
    Bundle,
    Capabilities,
    Checkpoint,
    Finding,
    Handle,
    JobSpec,
    LegState,
    Observation,
    Quote,
    Verdict,
)
from boneagectl.target_settings import AzureSettings
from boneagectl.targets.azure import billing, jobs, outputs, preflight, pricing, rehearsal, render, status
from boneagectl.targets.azure.client import JOBS, ArmClient, Credential, Workspace
from boneagectl.targets.azure.infra import Infra
from boneagectl.targets.azure.status import AzureJob
from boneagectl.targets.base import BaseTarget

_FIND_AGAIN_S = (1.0, 4.0, 10.0)
_FOLLOW_S = 5.0
_STOP_POLL_S = 2.0
_RELEASE_S = 600.0
"""How long after their idle time the nodes may take to be released."""
DAILY_USD_MICRO = 330_000
"""The load balancer of a cluster, even without nodes: learn.microsoft.com, concept-plan-manage-cost."""
STARTUP_S = 900
"""Until a node is up, the image pulled and the data mounted; billed like the rest. An estimate on the safe side."""


class AzureTarget(BaseTarget):
    """`root` keeps refreshed prices and where each leg was sent to."""

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

    def __init__(self, root: Path, settings: AzureSettings, stop_grace_s: float = 120) -> None:
        self.root, self.settings, self.stop_grace_s = root, settings, stop_grace_s
        self._jobs: dict[str, AzureJob] = {}

    @cached_property
    def arm(self) -> ArmClient:
        return ArmClient(Credential())

    @cached_property
    def workspace(self) -> Workspace:
        """Where new legs go. Without a subscription in the settings it is the only one of the account."""
        settings = self.settings
        subscription = settings.subscription or preflight.only_subscription(self.arm)
        return Workspace(subscription, settings.resource_group, settings.workspace)

    @property
    def infra(self) -> Infra:
        return Infra(self.arm, self.workspace, self.settings)

    @property
    def prices_file(self) -> Path:
        return self.root / "prices.json"

    # -------------------------------------------------------------------------- before the submit
    @property
    def subscription_check(self) -> preflight.SubscriptionCheck:
        return preflight.SubscriptionCheck(self.arm, self.workspace, self.settings, self.prices_file)

    def check(self) -> list[Finding]:
        try:
            return list(self.subscription_check.findings())
        except BoneagectlError as error:
            return [Finding("bad", "azure", error.message, error.next_step)]

    def offers(self, regions: Sequence[str]) -> Iterator[preflight.RegionOffer]:
        """What each region offers for the size in the settings."""
        subscription = self.workspace.subscription
        allowed = preflight.allowed_regions(self.arm, subscription)
        for region in regions:
            yield preflight.get_offer(self.arm, subscription, region, self.settings, allowed, self.prices_file)

    def bill(self) -> Bill:
        return billing.get_month_to_date(self.arm, self.workspace.subscription)

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        pack = render.pack_reference(spec, self.settings)
        return preflight.check_leg(self.arm, self.workspace, self.settings, pack)

    def quote(self, spec: JobSpec) -> Quote:
        """Every node from its start to the end of its idle time, and what the cluster costs per day."""
        price, settings = self._price(), self.settings
        maximum = pricing.maximum_cost_usd_micro(
            price, settings.nodes, spec.time_limit_s, settings.idle_s, STARTUP_S, DAILY_USD_MICRO
        )
        return Quote(self.name, spec.time_limit_s, maximum, self._rate(), 1, price.source, price.date)

    def _price(self) -> pricing.Price:
        settings = self.settings
        return pricing.find_price(settings.size, settings.region, settings.tier == "low_priority", self.prices_file)

    def _rate(self) -> int:
        """An hour of all nodes, in micro-dollars."""
        return self._price().usd_micro_per_hour * self.settings.nodes

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        render.write_job_folder(spec, bundle, leg_id, dest, resume, self.settings)

    def rehearse(self, rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
        return rehearsal.rehearse(rendered, workspace, python)

    def push_pack(self, pack: Path) -> str:
        """Registers a pack as a data asset named by its fingerprint, so that the same pack is uploaded once."""
        name = render.asset_name(PackFolder(pack).read_card()["fingerprint"])
        try:
            self.arm.get(f"{self.workspace.resource_id}/data/{name}/versions/1", JOBS)
        except NotFound:
            with tempfile.TemporaryDirectory() as folder:
                for file in PackFolder(pack).files():  # other files in the folder are not uploaded
                    os.link(file, Path(folder, file.name))
                jobs.register_pack(self.arm.credential, self.workspace, name, Path(folder))
        return f"azureml:{name}:1"

    # ------------------------------------------------------------------------------- submit
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """The leg's id is the job's name, so a second attempt can only find the first."""
        if handle := self.find(leg_id):
            return handle
        # The settings may have changed by the time that the leg is looked for or priced.
        unseen_s = STARTUP_S + self.settings.idle_s
        note = {"place": self.workspace.resource_id, "usd_micro_per_hour": self._rate(), "unseen_s": unseen_s}
        write_json(self._note_path(leg_id), note)
        try:
            jobs.create_job(self.arm.credential, self.workspace, rendered)
        except SubmitUncertain:
            for pause_s in _FIND_AGAIN_S:
                time.sleep(pause_s)
                with suppress(RemoteError):
                    if handle := self.find(leg_id):
                        return handle
            raise
        return AzureJob(self.arm, self.workspace, leg_id).handle

    def _note_path(self, leg_id: str) -> Path:
        return self.root / "sent" / f"{leg_id}.json"

    def _read_note(self, leg_id: str) -> dict[str, Any]:
        """Where the leg was sent to and at which price; nothing where it was not sent from here."""
        path = self._note_path(leg_id)
        return parse_object(path.read_text(encoding="utf-8"), path.name) if path.exists() else {}

    def find(self, leg_id: str) -> Handle | None:
        note = self._read_note(leg_id)
        job = AzureJob(self.arm, Workspace.parse(note["place"]) if note else self.workspace, leg_id)
        return job.handle if job.describe() else None

    # ---------------------------------------------------------------------------- after the submit
    def _job(self, handle: Handle) -> AzureJob:
        """Kept with its open blob stores."""
        if handle.remote_id not in self._jobs:
            workspace = Workspace.parse(handle.url) if handle.url else self.workspace
            self._jobs[handle.remote_id] = AzureJob(self.arm, workspace, handle.remote_id)
        return self._jobs[handle.remote_id]

    def poll(self, handle: Handle) -> Observation:
        report, note = self._job(handle).report(), self._read_note(handle.remote_id)
        if report is None:
            return Observation(LegState.LOST, "the job is no longer in the workspace", elapsed_s=None)
        rate = note["usd_micro_per_hour"] if note else self._rate()
        unseen_s = note["unseen_s"] if note else STARTUP_S + self.settings.idle_s
        return status.observation_from(report, rate, unseen_s)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        """Reads the whole blob each time: it is some hundred kilobytes, and grows."""
        job, shown = self._job(handle), 0
        while True:
            is_last = not follow or job.is_over()
            lines = job.read_log().decode("utf-8", "replace").split("\n")
            complete = lines if is_last and lines[-1] else lines[:-1]
            yield from complete[shown:]
            shown = len(complete)
            if is_last:
                return
            time.sleep(_FOLLOW_S)

    def stop(self, handle: Handle) -> None:
        """Cancels, which gives the trainer time to save, and waits until the job is over."""
        job = self._job(handle)
        if job.is_over():
            return
        try:
            job.cancel()
        except RemoteError:
            if not job.is_over():  # one that ended meanwhile refuses
                raise
        give_up_s = time.monotonic() + self.stop_grace_s
        while not job.is_over() and time.monotonic() < give_up_s:
            time.sleep(_STOP_POLL_S)

    def wind_down(self, handle: Handle) -> Iterator[str]:
        """Waits until the cluster has released the leg's nodes, which are billed until then."""
        job, idle_s = self._job(handle), self.settings.idle_s
        give_up_s = time.monotonic() + idle_s + _RELEASE_S
        while nodes := job.count_idle_nodes():
            if time.monotonic() > give_up_s:
                raise ProviderRefused(f"{nodes} node(s) are still up and billed", "boneagectl infra down")
            released = f"they are released after {units.format_duration(idle_s)} without a job"
            yield f"{nodes} node(s) still up and billed; {released}"
            time.sleep(_STOP_POLL_S)

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        job = self._job(handle)
        outputs.download_default_outputs(job.log_store, outputs.default_outputs_folder(job.name), dest / "outputs")
        return outputs.download_run(job.output_store, outputs.run_folder(job.name), job.read_log(), RunFolder(dest))

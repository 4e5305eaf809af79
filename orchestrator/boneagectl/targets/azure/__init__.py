"""The `azure` target: each leg is a command job on an Azure ML cluster that has no node while nothing runs.

The official SDK submits. All else is plain REST and the blob SDK, which start in a fraction of its time and do
not have its faults (see blobs.py).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
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
    Observation,
    Quote,
    Verdict,
)
from boneagectl.target_settings import AzureSettings
from boneagectl.targets.azure import billing, client, jobs, outputs, preflight, pricing, rehearsal, render, status
from boneagectl.targets.azure.infra import Infra
from boneagectl.targets.azure.preflight import Examination
from boneagectl.targets.azure.status import Remote
from boneagectl.targets.base import BaseTarget

_LOOKS_S = (1.0, 4.0, 10.0)
_FOLLOW_S = 5.0
_STOP_POLL_S = 2.0
_LETS_GO_S = 600.0
DAILY_USD_MICRO = 330_000
"""The load balancer of a cluster, also without nodes: learn.microsoft.com, concept-plan-manage-cost."""
STARTUP_S = 900
"""Until a node is up, the image pulled and the data mounted; billed like the rest. A guess on the safe side."""


class AzureTarget(BaseTarget):
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

    def __init__(self, root: Path, settings: AzureSettings, stop_grace_s: float = 120) -> None:
        self.root, self.settings, self.stop_grace_s = root, settings, stop_grace_s
        self._legs: dict[str, Remote] = {}

    @cached_property
    def arm(self) -> client.ArmClient:
        return client.ArmClient(client.Credential())

    @cached_property
    def place(self) -> client.Workspace:
        """Where new legs go. Without a subscription in the settings, the only one that the login sees."""
        settings = self.settings
        subscription = settings.subscription or preflight.only_subscription(self.arm)
        return client.Workspace(subscription, settings.resource_group, settings.workspace)

    @property
    def infra(self) -> Infra:
        return Infra(self.arm, self.place, self.settings)

    @property
    def prices_file(self) -> Path:
        return self.root / "prices.json"

    # -------------------------------------------------------------------------- before the start
    def examination(self) -> Examination:
        return Examination(self.arm, self.place, self.settings, self.prices_file)

    def check(self) -> list[Finding]:
        try:
            return list(self.examination().findings())
        except BoneagectlError as error:
            return [Finding("bad", "azure", error.message, error.next_step)]

    def offers(self, regions: Sequence[str]) -> Iterator[preflight.Offer]:
        """What each region has for the size that is wished for, one after the other."""
        subscription = self.place.subscription
        allowed = preflight.allowed_regions(self.arm, subscription)
        for region in regions:
            yield preflight.offer(self.arm, subscription, region, self.settings, allowed, self.prices_file)

    def bill(self) -> Bill:
        return billing.this_month(self.arm, self.place.subscription)

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        return preflight.verdicts(self.arm, self.place, self.settings, self._pack(spec))

    def quote(self, spec: JobSpec) -> Quote:
        """Every node from its start-up to the end of its idle time, and what the workspace costs a day."""
        price, settings = self._price(), self.settings
        worst = pricing.worst_case(
            price, settings.nodes, spec.time_limit_s, settings.idle_s, STARTUP_S, DAILY_USD_MICRO
        )
        return Quote(self.name, spec.time_limit_s, worst, self._rate(), 1, price.source, price.date)

    def _price(self) -> pricing.Price:
        settings = self.settings
        return pricing.lookup(settings.size, settings.region, settings.tier == "low_priority", self.prices_file)

    def _rate(self) -> int:
        return self._price().usd_micro_per_hour * self.settings.nodes

    def _pack(self, spec: JobSpec) -> str:
        return self.settings.pack or f"azureml:{render.asset_of(spec.data['fingerprint'])}:1"

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        render.write(spec, bundle, leg_id, dest, resume, self.settings)

    def rehearse(self, rendered: Path, workspace: Path, python: str) -> Iterator[Finding]:
        return rehearsal.rehearse(rendered, workspace, python)

    def push_pack(self, pack: Path) -> str:
        """Registers a pack as a data asset named by its fingerprint, so that the same pack is uploaded once."""
        name = render.asset_of(PackFolder(pack).read_card()["fingerprint"])
        try:
            self.arm.get(f"{self.place.resource_id}/data/{name}/versions/1", client.JOBS)
        except NotFound:
            with tempfile.TemporaryDirectory() as folder:
                for file in PackFolder(pack).files():  # what else lies beside them stays here
                    os.link(file, Path(folder, file.name))
                jobs.register(self.arm.credential, self.place, name, Path(folder))
        return f"azureml:{name}:1"

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        """The leg's id is the job's name, so that a second try could only meet the first."""
        if handle := self.find(leg_id):
            return handle
        self._note_down(leg_id)
        try:
            jobs.create(self.arm.credential, self.place, rendered)
        except SubmitUncertain as doubt:
            return self._found_after(doubt, leg_id)
        return Remote(self.arm, self.place, leg_id).handle

    def _found_after(self, doubt: SubmitUncertain, leg_id: str) -> Handle:
        for pause_s in _LOOKS_S:
            time.sleep(pause_s)
            try:
                if handle := self.find(leg_id):
                    return handle
            except RemoteError:
                continue
        raise doubt

    def _note_down(self, leg_id: str) -> None:
        """Where it goes and at which price: the settings may be others by the time somebody asks."""
        unseen_s = STARTUP_S + self.settings.idle_s
        note = {"place": self.place.resource_id, "usd_micro_per_hour": self._rate(), "unseen_s": unseen_s}
        write_json(self._note(leg_id), note)

    def _noted(self, leg_id: str) -> dict[str, Any]:
        note = self._note(leg_id)
        return parse_object(note.read_text(encoding="utf-8"), note.name) if note.exists() else {}

    def _note(self, leg_id: str) -> Path:
        return self.root / "sent" / f"{leg_id}.json"

    def find(self, leg_id: str) -> Handle | None:
        noted = self._noted(leg_id)
        leg = Remote(self.arm, client.Workspace.parse(noted["place"]) if noted else self.place, leg_id)
        return leg.handle if leg.job() else None

    # ---------------------------------------------------------------------------- while it runs
    def _leg(self, handle: Handle) -> Remote:
        """Where it was sent to, with its stores left open."""
        if handle.remote_id not in self._legs:
            place = client.Workspace.parse(handle.url) if handle.url else self.place
            self._legs[handle.remote_id] = Remote(self.arm, place, handle.remote_id)
        return self._legs[handle.remote_id]

    def poll(self, handle: Handle) -> Observation:
        seen, noted = self._leg(handle).look(), self._noted(handle.remote_id)
        if seen is None:
            return status.gone()
        rate = noted["usd_micro_per_hour"] if noted else self._rate()
        return status.snapshot(seen, rate, noted["unseen_s"] if noted else STARTUP_S + self.settings.idle_s)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        """Reads the blob anew each time: it is some hundred kilobytes, and appended to as it likes."""
        leg, seen = self._leg(handle), 0
        while True:
            is_over = not follow or leg.is_over()
            lines = leg.log().decode("utf-8", "replace").split("\n")
            whole = lines if is_over and lines[-1] else lines[:-1]
            yield from whole[seen:]
            seen = len(whole)
            if is_over:
                return
            time.sleep(_FOLLOW_S)

    def stop(self, handle: Handle) -> None:
        """Cancels, which gives the trainer time to save, and waits until the job is over."""
        leg = self._leg(handle)
        if leg.is_over():
            return
        try:
            leg.cancel()
        except RemoteError:
            if not leg.is_over():  # it may have ended meanwhile, and then refuses
                raise
        give_up = time.monotonic() + self.stop_grace_s
        while not leg.is_over() and time.monotonic() < give_up:
            time.sleep(_STOP_POLL_S)

    def wind_down(self, handle: Handle) -> Iterator[str]:
        """Until the cluster has let the leg's nodes go, which are billed as long as they stand."""
        leg, idle_s = self._leg(handle), self.settings.idle_s
        give_up = time.monotonic() + idle_s + _LETS_GO_S
        while nodes := leg.idle_nodes():
            if time.monotonic() > give_up:
                raise ProviderRefused(f"{nodes} nodes still stand and are billed", "boneagectl infra down ends it")
            yield f"{nodes} node(s) still up and billed; they go after {units.format_duration(idle_s)} without work"
            time.sleep(_STOP_POLL_S)

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        leg = self._leg(handle)
        outputs.bring_default(leg.logs, outputs.default_of(leg.name), dest / "outputs")
        return outputs.bring(leg.outputs, outputs.run_of(leg.name), leg.log(), RunFolder(dest))

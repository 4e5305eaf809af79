"""The life of a run: plan, reserve, submit, poll, stop, collect. Commands call these and print.

The order makes it safe. A leg is reserved before anything is created and attached afterwards; the submitting process
holds the leg's lock in between. So a reserved leg whose lock is free was left by a crash, and `reconcile` asks the
target whether it exists.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from boneage_trainer.contract import RunFolder, TrainConfig, write_json
from boneagectl import locks
from boneagectl.errors import LimitRefused, MachineError, NotYet, RemoteError, SubmitUncertain, UsageError
from boneagectl.models import Handle, Leg, LegState, Observation, Run, as_json, parse_iso
from boneagectl.targets import get

if TYPE_CHECKING:  # a quick command like `ls` needs none of these: see boneagectl.models
    from boneagectl.config import Config
    from boneagectl.ledger.store import Ledger
    from boneagectl.models import Artifacts, Bundle, Checkpoint, Finding, JobSpec, Plan
    from boneagectl.paths import Home, LegPaths
    from boneagectl.targets.base import BaseTarget


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with the bundle that it submits; nothing is reserved or written yet."""

    plan: Plan
    bundle: Bundle
    target: BaseTarget
    resume: Checkpoint | None


class Workflow:
    """Everything a command can do with runs, in one state folder with one set of settings."""

    def __init__(self, home: Home, config: Config, ledger: Ledger) -> None:
        self.home = home
        self.config = config
        self.ledger = ledger

    def target(self, name: str) -> BaseTarget:
        return get(name, self.home, self.config)

    # ------------------------------------------------------------------------------------ plan
    def prepare(self, name: str | None = None) -> Prepared:
        """Plans the first leg of a new run."""
        from boneagectl import planner

        run_id = planner.check_run_id(name) if name else planner.new_run_id()
        has_data = self.target(self.config["target"]).capabilities.attaches_data
        return self._prepare(run_id, 1, planner.build_spec(self.config, has_data), None)

    def prepare_resume(self, run: Run) -> Prepared:
        """Plans the next leg of `run`, from the newest checkpoint that its legs left.

        Raises:
            UsageError: the run is complete. NotYet: its last leg is not over.
        """
        last = run.latest
        if last.state is LegState.COMPLETE:
            raise UsageError(f"{run.run_id} is complete", f"boneagectl report {run.run_id}")
        if not last.state.is_over:
            raise NotYet(f"{last.leg_id} is {last.state}", f"boneagectl watch {run.run_id}")
        return self._prepare(run.run_id, last.number + 1, self._spec_of(run), self._newest_checkpoint(run))

    def _prepare(self, run_id: str, number: int, spec: JobSpec, resume: Checkpoint | None) -> Prepared:
        from boneagectl import bundle, planner

        target = self.target(spec.target)
        plan = planner.plan_leg(run_id, number, spec, target, self.ledger, self.home, self._is_firm)
        return Prepared(plan, bundle.build(spec), target, resume)

    @property
    def _is_firm(self) -> bool:
        """Whether the time limit was set for this leg; one from a file or by default is only an upper bound."""
        return self.config.settings["time_limit"].origin == "flag"

    def _spec_of(self, run: Run) -> JobSpec:
        """The spec of an existing run: its own config and data, today's limits."""
        from boneagectl import planner

        has_data = self.target(self.config["target"]).capabilities.attaches_data
        spec = planner.build_spec(self.config, has_data, TrainConfig.from_mapping(run.config), Path(run.pack))
        if not run.data["fingerprint"]:  # the checkpoint knows which images they were
            return replace(spec, data=run.data)
        if spec.data != run.data:
            raise UsageError(
                f"the pack {run.pack} is not the one {run.run_id} was trained on",
                f"prepare the same images again; its fingerprint was {run.data['fingerprint'][:12]}",
            )
        return spec

    def _newest_checkpoint(self, run: Run) -> Checkpoint | None:
        from boneagectl.models import Checkpoint

        for leg in reversed(run.legs):
            if leg.handle:
                with suppress(NotYet):
                    self.collect_leg(leg)
                if self.paths(leg).artifacts.last.exists():
                    return Checkpoint(self.paths(leg).artifacts.root, Handle.parse(leg.handle))
        return None

    def preflight(self, prepared: Prepared) -> Prepared:
        """Asks the provider, before anything is reserved, and adds its checks to the plan."""
        from boneagectl.ledger.accounts import check_quota

        plan, target = prepared.plan, prepared.target
        if not target.capabilities.needs_network:
            return prepared
        verdicts = target.preflight(plan.spec)
        if quota := target.quota():
            self.ledger.set_quota(target.name, quota)
            plan = self._cut_to_quota(plan, target, quota.free_s)
            verdicts.append(check_quota(quota, target.name, plan.quote.worst_s))
        return replace(prepared, plan=replace(plan, verdicts=(*plan.verdicts, *verdicts)))

    def _cut_to_quota(self, plan: Plan, target: BaseTarget, free_s: int) -> Plan:
        """The plan cut to the hours that the provider itself has left, where its time limit is not firm."""
        from boneagectl import planner

        if self._is_firm or plan.quote.worst_s <= free_s or free_s < planner.SHORTEST_S:
            return plan
        spec = replace(plan.spec, time_limit_s=free_s // 60 * 60)
        shorter = planner.plan_leg(plan.run_id, plan.leg_number, spec, target, self.ledger, self.home)
        verdicts = planner.check_shortened(spec, plan.spec.time_limit_s)
        return replace(shorter, verdicts=(*shorter.verdicts, *verdicts))

    def render(self, prepared: Prepared, dest: Path) -> None:
        """Writes into `dest` exactly what is submitted, and nothing anywhere else."""
        if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            raise UsageError(f"{dest} is not an empty folder", "choose another --out")
        plan = prepared.plan
        prepared.target.render(plan.spec, prepared.bundle, plan.leg_id, dest, prepared.resume)

    def rehearse(self) -> Iterator[Finding]:
        """Renders the settings' job and executes it here, in a temporary folder."""
        import tempfile

        prepared = self.prepare("rehearsal")
        with tempfile.TemporaryDirectory() as folder:
            sent, python = Path(folder) / "sent", self.config["targets.local.python"]
            self.render(prepared, sent)
            yield from prepared.target.rehearse(sent, Path(folder), python)

    # ------------------------------------------------------------------------------------ reserve and submit
    def submit(self, prepared: Prepared) -> Handle:
        """Reserves, submits and attaches the planned leg.

        Raises:
            LimitRefused: a limit forbids it; nothing was created.
        """
        plan, paths = prepared.plan, self.home.leg(prepared.plan.run_id, prepared.plan.leg_number)
        for refusal in plan.refusals:
            raise LimitRefused(refusal.detail, refusal.next_step or "boneagectl budget")
        try:
            with locks.hold(paths.lock):
                return self._submit_locked(prepared, paths)
        except locks.LockBusy:
            raise LimitRefused(f"{plan.leg_id} is being submitted by another process", "boneagectl ls") from None

    def _submit_locked(self, prepared: Prepared, paths: LegPaths) -> Handle:
        from boneagectl import bundle

        plan = prepared.plan
        self.ledger.reserve(plan, prepared.bundle.sha256)
        try:
            write_json(paths.plan, as_json({"plan": plan, "bundle": prepared.bundle}))
            bundle.keep_diff(plan.spec.source_diff, paths.source_diff)
            self.render(prepared, paths.sent)
            handle = prepared.target.submit(plan.leg_id, paths.sent)
        except SubmitUncertain:
            raise  # the reservation stays until `reconcile` finds the leg, or finds that it was never created
        except Exception as error:
            if existing := prepared.target.find(plan.leg_id):
                self.ledger.attach(plan.leg_id, existing)
            else:
                self.ledger.release(plan.leg_id, f"submit failed: {error}")
            raise
        self.ledger.attach(plan.leg_id, handle)
        return handle

    def reconcile(self) -> None:
        """Attaches or releases every leg that a crash left between its reservation and its attachment."""
        for leg in self.ledger.open_legs():
            if leg.state is LegState.RESERVED:
                self._reconcile(leg)

    def _reconcile(self, leg: Leg) -> None:
        target = self.target(leg.target)
        try:
            with locks.hold(self.paths(leg).lock):
                if self.ledger.leg(leg.leg_id).state is not LegState.RESERVED:
                    return
                if handle := target.find(leg.leg_id):
                    self.ledger.attach(leg.leg_id, handle)
                elif time.time() >= parse_iso(leg.created) + target.capabilities.appears_s:
                    self.ledger.release(leg.leg_id, "the submit was interrupted before it began")
        except (locks.LockBusy, MachineError, RemoteError):
            return  # another process is submitting it, or the target cannot be asked: the reservation stays

    # ------------------------------------------------------------------------------------ poll and stop
    def refresh(self) -> None:
        """Reconciles, and polls every open leg whose target needs no network for it."""
        self.reconcile()
        for leg in self.ledger.open_legs():
            if leg.handle and not self.target(leg.target).capabilities.needs_network:
                self.poll(leg)

    def poll(self, leg: Leg) -> Observation:
        """What the target reports of `leg` now, recorded in the ledger."""
        seen = self.target(leg.target).poll(self.handle(leg))
        seen = replace(seen, epochs=seen.epochs or leg.epochs)
        self.ledger.observe(leg.leg_id, seen)
        return seen

    def poll_latest(self, run: Run) -> Observation:
        """Polls the run's latest leg; of a leg that is not attached, what the ledger knows."""
        leg = self.ledger.leg(run.latest.leg_id)  # another process may have attached it since
        return self.poll(leg) if leg.handle else Observation(leg.state, leg.reason, leg.epoch, leg.epochs)

    def logs(self, run: Run, follow: bool) -> Iterator[str]:
        leg = run.latest
        return self.target(leg.target).logs(self.handle(leg), follow)

    def stop(self, run: Run) -> Observation:
        """Makes the latest leg save and end; returns its state then. Silent if it is over already."""
        leg = run.latest
        if not leg.state.is_over:
            self.target(leg.target).stop(self.handle(leg))
        return self.poll_latest(run)

    def wind_down(self, run: Run) -> Iterator[str]:
        """Until nothing of the latest leg, which is over, is billed any more: what still is."""
        leg = run.latest
        return self.target(leg.target).wind_down(self.handle(leg)) if leg.handle else iter(())

    # ------------------------------------------------------------------------------------ collect
    def collect(self, run: Run) -> Artifacts:
        """Collects every leg; returns the outputs of the newest one with an epoch, else of the newest with anything.

        Raises:
            NotYet: no leg has any outputs.
        """
        outputs = [self.collect_leg(leg) for leg in reversed(run.legs) if leg.handle]
        if not outputs:
            raise NotYet(f"no leg of {run.run_id} ever started", f"boneagectl show {run.run_id}")
        return next((item for item in outputs if RunFolder(item.folder).metrics.exists()), outputs[0])

    def import_results(self, run: Run, archive: Path) -> Artifacts:
        """Outputs that the user downloaded: of the leg that the file is named after, else of the latest.

        Raises:
            UsageError: the target has no such files.
        """
        from boneagectl.targets.base import AcceptsResultsZip

        named = [leg for leg in run.legs if leg.leg_id in archive.name]
        leg = (named or [run.latest])[-1]
        target = self.target(leg.target)
        if not isinstance(target, AcceptsResultsZip):
            raise UsageError(f"{leg.leg_id} ran on {leg.target}, whose outputs are downloaded", "leave --from out")
        outputs = target.collect_from_zip(self.handle(leg), archive, self.paths(leg).artifacts.root)
        self.poll(leg)
        return outputs

    def collect_leg(self, leg: Leg) -> Artifacts:
        """Downloads the leg's outputs, and records how fast it was."""
        from boneagectl import throughput

        outputs = self.target(leg.target).collect(self.handle(leg), self.paths(leg).artifacts.root)
        run, folder = self.ledger.find_run(leg.run_id), RunFolder(outputs.folder)
        if speed := throughput.measure_leg(leg.target, leg.leg_id, run.config, run.data, folder):
            self.ledger.record_speed(leg.leg_id, speed)
        return outputs

    def paths(self, leg: Leg) -> LegPaths:
        return self.home.leg(leg.run_id, leg.number)

    @staticmethod
    def handle(leg: Leg) -> Handle:
        """Raises NotYet where the leg was never created."""
        if not leg.handle:
            raise NotYet(f"{leg.leg_id} never started: {leg.reason or leg.state}", f"boneagectl resume {leg.run_id}")
        return Handle.parse(leg.handle)

"""The way of a run: plan, book, send, follow, stop, bring back. Commands call these and print.

Order is what makes it safe. A leg is booked before anything is created and attached after; whoever
submits holds the leg's lock in between, so a booked leg whose lock is free was left by a crash, and
`reconcile` asks the target whether it exists.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from boneage_trainer.contract import RunFolder, TrainConfig, write_json
from boneagectl import locks
from boneagectl.config import Config
from boneagectl.errors import BoneagectlError, LimitRefused, MachineError, NotYet, SubmitUncertain, UsageError
from boneagectl.ledger.store import Ledger
from boneagectl.models import (
    Artifacts,
    Bill,
    Bundle,
    Checkpoint,
    Finding,
    Handle,
    JobSpec,
    Leg,
    LegState,
    Observation,
    Plan,
    Quota,
    Run,
    as_json,
    parse_iso,
)
from boneagectl.paths import Home, LegPaths
from boneagectl.targets import NAMES, get
from boneagectl.targets.base import AcceptsResultsZip, BaseTarget


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with the bundle it would send; nothing is booked or written yet."""

    plan: Plan
    bundle: Bundle
    target: BaseTarget
    resume: Checkpoint | None


@dataclass(frozen=True, slots=True)
class Counts:
    """By target: the hours and the money as the provider counts them, and why one cannot tell."""

    quotas: dict[str, Quota]
    bills: dict[str, Bill]
    troubles: dict[str, str]


class Workflow:
    """Everything a command can do with runs, on one state folder with one set of settings."""

    def __init__(self, home: Home, config: Config, ledger: Ledger) -> None:
        self.home = home
        self.config = config
        self.ledger = ledger

    def target(self, name: str) -> BaseTarget:
        return get(name, self.home, self.config)

    # ------------------------------------------------------------------------------------ submit
    def prepare(self, name: str | None = None) -> Prepared:
        """Plans the first leg of a new run."""
        from boneagectl import planner

        run_id = planner.check_run_id(name) if name else planner.new_run_id()
        is_there = self.target(self.config["target"]).capabilities.attaches_data
        return self._prepare(run_id, 1, planner.build_spec(self.config, is_there), None)

    def prepare_resume(self, run: Run) -> Prepared:
        """Plans the next leg of `run`, from the newest checkpoint that its legs left.

        Raises:
            UsageError: the run is complete. NotYet: its last leg is still at work.
        """
        last = run.latest
        if last.state is LegState.COMPLETE:
            raise UsageError(f"{run.run_id} is complete", f"boneagectl report {run.run_id}")
        if not last.state.is_over:
            raise NotYet(f"{last.leg_id} is {last.state}", f"boneagectl watch {run.run_id}")
        spec = self._spec_of(run)
        return self._prepare(run.run_id, last.number + 1, spec, self._newest_checkpoint(run))

    def _prepare(self, run_id: str, number: int, spec: JobSpec, resume: Checkpoint | None) -> Prepared:
        from boneagectl import bundle, planner

        target = self.target(spec.target)
        plan = planner.plan_leg(run_id, number, spec, target, self.ledger, self.home, self._is_firm)
        return Prepared(plan, bundle.build(spec), target, resume)

    @property
    def _is_firm(self) -> bool:
        """Whether the time limit was demanded for this leg; one from a file or by default is only a wish."""
        return self.config.settings["time_limit"].origin == "flag"

    def _spec_of(self, run: Run) -> JobSpec:
        """The spec of a run that exists: its own config and data, today's limits."""
        from boneagectl import planner

        is_there = self.target(self.config["target"]).capabilities.attaches_data
        spec = planner.build_spec(self.config, is_there, TrainConfig.from_mapping(run.config), Path(run.pack))
        if not run.data["fingerprint"]:  # the checkpoint knows which images they were
            return replace(spec, data=run.data)
        if spec.data != run.data:
            raise UsageError(
                f"the pack {run.pack} is not the one {run.run_id} was trained on",
                f"prepare the same images again; its fingerprint was {run.data['fingerprint'][:12]}",
            )
        return spec

    def _newest_checkpoint(self, run: Run) -> Checkpoint | None:
        for leg in reversed(run.legs):
            if leg.handle:
                with suppress(NotYet):
                    self.collect_leg(leg)
                if self.paths(leg).artifacts.last.exists():
                    return Checkpoint(self.paths(leg).artifacts.root, Handle.parse(leg.handle))
        return None

    def preflight(self, prepared: Prepared) -> Prepared:
        """Asks the provider, before anything is booked, and adds what it says to the plan."""
        from boneagectl import planner

        plan, target = prepared.plan, prepared.target
        if not target.capabilities.needs_network:
            return prepared
        said = target.preflight(plan.spec)
        if quota := target.quota():
            self.ledger.set_quota(target.name, quota)
            plan = self._within(plan, target, quota.free_s)
            said.append(planner.check_quota(quota, plan.quote))
        return replace(prepared, plan=replace(plan, verdicts=(*plan.verdicts, *said)))

    def _within(self, plan: Plan, target: BaseTarget, free_s: int) -> Plan:
        """The plan cut to the hours that the provider itself has left, where its limit is only a wish."""
        from boneagectl import planner

        if self._is_firm or plan.quote.worst_s <= free_s or free_s < planner.SHORTEST_S:
            return plan
        spec = replace(plan.spec, time_limit_s=free_s // 60 * 60)
        less = planner.plan_leg(plan.run_id, plan.leg_number, spec, target, self.ledger, self.home)
        said = planner.shortened_verdict(spec, plan.spec.time_limit_s)
        return replace(less, verdicts=(*less.verdicts, *said))

    def provider_counts(self) -> Counts:
        """Asks each provider what it counts itself. Hours are noted in the ledger; of money nothing is changed."""
        counts = Counts({}, {}, {})
        for name in NAMES:
            try:
                self._count(name, self.target(name), counts)
            except BoneagectlError as error:
                counts.troubles[name] = error.message
        return counts

    def _count(self, name: str, target: BaseTarget, counts: Counts) -> None:
        if quota := target.quota():
            counts.quotas[name] = quota
            self.ledger.set_quota(name, quota)
        if not target.capabilities.billed:
            return
        account = self.ledger.account(name)
        if account.spent_usd_micro + account.reserved_usd_micro and (bill := target.bill()):
            counts.bills[name] = bill

    def render(self, prepared: Prepared, dest: Path) -> None:
        """Writes into `dest` exactly what would be sent, and nothing anywhere else."""
        if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
            raise UsageError(f"{dest} is not an empty folder", "choose another --out")
        plan = prepared.plan
        prepared.target.render(plan.spec, prepared.bundle, plan.leg_id, dest, prepared.resume)

    def rehearse(self) -> Iterator[Finding]:
        """Renders the settings' job and has its target run it here, in a folder that is gone afterwards."""
        import tempfile

        prepared = self.prepare("rehearsal")
        with tempfile.TemporaryDirectory() as place:
            sent, python = Path(place) / "sent", self.config["targets.local.python"]
            self.render(prepared, sent)
            yield from prepared.target.rehearse(sent, Path(place), python)

    def submit(self, prepared: Prepared) -> Handle:
        """Books, sends and attaches the planned leg.

        Raises:
            LimitRefused: a limit forbids it; nothing was created.
        """
        plan, paths = prepared.plan, self.home.leg(prepared.plan.run_id, prepared.plan.leg_number)
        for refusal in plan.refusals:
            raise LimitRefused(refusal.detail, f"boneagectl budget, or change what {refusal.limit!r} rests on")
        try:
            with locks.hold(paths.lock):
                return self._submit_locked(prepared, paths)
        except locks.LockBusy:
            raise LimitRefused(f"{plan.leg_id} is being submitted by another process", "boneagectl ls") from None

    def _submit_locked(self, prepared: Prepared, paths: LegPaths) -> Handle:
        plan = prepared.plan
        self.ledger.reserve(plan, prepared.bundle.sha256)
        try:
            write_json(paths.plan, as_json({"plan": plan, "bundle": prepared.bundle}))
            self.render(prepared, paths.sent)
            handle = prepared.target.submit(plan.leg_id, paths.sent)
        except SubmitUncertain:
            raise  # the booking stands until `reconcile` finds the leg, or finds that it never came
        except Exception as error:
            self._settle_doubt(plan.leg_id, prepared.target, f"submit failed: {error}")
            raise
        self.ledger.attach(plan.leg_id, handle)
        return handle

    def _settle_doubt(self, leg_id: str, target: BaseTarget, why: str) -> None:
        """A booked leg that may or may not exist: attached if the target knows it, else released."""
        if handle := target.find(leg_id):
            self.ledger.attach(leg_id, handle)
        else:
            self.ledger.release(leg_id, why)

    # ------------------------------------------------------------------------------------ follow
    def reconcile(self) -> None:
        """Accounts for every leg that a crash left between its booking and its attachment."""
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
                    self.ledger.release(leg.leg_id, "the submit was cut off before it began")
        except (locks.LockBusy, MachineError):
            return  # somebody is submitting it right now, or the target cannot be asked: the booking stands

    def refresh(self) -> None:
        """Reconciles, and polls every open leg of a target that needs no network for it."""
        self.reconcile()
        for leg in self.ledger.open_legs():
            if leg.handle and not self.target(leg.target).capabilities.needs_network:
                self.poll(leg)

    def poll(self, leg: Leg) -> Observation:
        """What the target says of `leg` now, noted in the ledger."""
        snapshot = self.target(leg.target).poll(self.handle(leg))
        snapshot = replace(snapshot, epochs=snapshot.epochs or leg.epochs)
        self.ledger.observe(leg.leg_id, snapshot)
        return snapshot

    def poll_latest(self, run: Run) -> Observation:
        """The newest snapshot of a run; of a leg that is not attached, what the ledger says."""
        leg = self.ledger.leg(run.latest.leg_id)  # another process may have attached it since
        return self.poll(leg) if leg.handle else Observation(leg.state, leg.reason, leg.epoch, leg.epochs)

    def logs(self, run: Run, follow: bool) -> Iterator[str]:
        leg = run.latest
        return self.target(leg.target).logs(self.handle(leg), follow)

    def wind_down(self, run: Run) -> Iterator[str]:
        """What of the latest leg, which is over, still stands and is billed, until nothing does."""
        leg = run.latest
        return self.target(leg.target).wind_down(self.handle(leg)) if leg.handle else iter(())

    # ------------------------------------------------------------------------- stop and bring back
    def stop(self, run: Run) -> Observation:
        """Has the latest leg save and end; returns what it ended as. Silent if already over."""
        leg = run.latest
        if not leg.state.is_over:
            self.target(leg.target).stop(self.handle(leg))
        return self.poll_latest(run)

    def collect(self, run: Run) -> Artifacts:
        """Brings back what the run's newest leg with an epoch to show has made, else the newest with anything.

        Raises:
            NotYet: no leg has made anything.
        """
        found = [self.collect_leg(leg) for leg in reversed(run.legs) if leg.handle]
        if not found:
            raise NotYet(f"no leg of {run.run_id} ever started", f"boneagectl show {run.run_id}")
        return next((item for item in found if RunFolder(item.folder).metrics.exists()), found[0])

    def bring(self, run: Run, zipped: Path) -> Artifacts:
        """What a person downloaded themselves: of the leg that the file is named by, else of the latest.

        Raises:
            UsageError: the target has no such files.
        """
        named = [leg for leg in run.legs if leg.leg_id in zipped.name]
        leg = (named or [run.latest])[-1]
        target = self.target(leg.target)
        if not isinstance(target, AcceptsResultsZip):
            raise UsageError(f"{leg.leg_id} ran on {leg.target}, whose results are fetched", "leave --from out")
        brought = target.collect_from_zip(self.handle(leg), zipped, self.paths(leg).artifacts.root)
        self.poll(leg)
        return brought

    def collect_leg(self, leg: Leg) -> Artifacts:
        """Brings what the leg has made, and notes how fast it was."""
        from boneagectl import throughput

        found = self.target(leg.target).collect(self.handle(leg), self.paths(leg).artifacts.root)
        run, folder = self.ledger.find_run(leg.run_id), RunFolder(found.folder)
        if speed := throughput.measure_leg(leg.target, leg.leg_id, run.config, run.data, folder):
            self.ledger.record_speed(leg.leg_id, speed)
        return found

    def paths(self, leg: Leg) -> LegPaths:
        return self.home.leg(leg.run_id, leg.number)

    @staticmethod
    def handle(leg: Leg) -> Handle:
        """Raises NotYet where the leg never came to be."""
        if not leg.handle:
            raise NotYet(f"{leg.leg_id} never started: {leg.reason or leg.state}", f"boneagectl resume {leg.run_id}")
        return Handle.parse(leg.handle)

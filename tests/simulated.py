"""Targets whose other side is a few lines and a clock of its own: for thousands of steps, where emulators do dozens.

They keep the protocol of targets/base.py. What the real targets do is tested against emulators that run jobs; here the
ledger, the limits and the order of things are what is tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, write_atomic, write_json, write_manifest
from boneagectl import artifacts, units
from boneagectl.errors import LimitRefused, NotYet, SubmitUncertain, Unreachable
from boneagectl.models import (
    Artifacts,
    Bill,
    Bundle,
    Capabilities,
    Checkpoint,
    Handle,
    JobSpec,
    LegState,
    Observation,
    Quote,
    Verdict,
)
from boneagectl.targets.base import BaseTarget

STARTUP_S = 300
EPOCH_S = 600


class Killed(BaseException):
    """Our process is gone: nobody may catch this."""


@dataclass
class Job:
    """One leg on the other side. `first` is the epoch it went on from."""

    leg_id: str
    begun_s: float
    limit_s: int
    epochs: int
    first: int
    rate: int
    ended_s: float | None = None
    how: str = ""

    def epoch_at(self, now_s: float) -> int:
        until_s = min(now_s, self.ended_s if self.ended_s is not None else now_s, self.begun_s + self.limit_s)
        return min(self.epochs, self.first + max(0, int((until_s - self.begun_s - STARTUP_S) // EPOCH_S)))

    def over_s(self, now_s: float) -> float | None:
        """When it ended, if it has: told to, complete, or at its own limit, which holds without us."""
        done_s = self.begun_s + STARTUP_S + (self.epochs - self.first) * EPOCH_S
        ends_s = min(self.begun_s + self.limit_s, done_s, self.ended_s if self.ended_s is not None else float("inf"))
        return ends_s if ends_s <= now_s else None

    def cost_usd_micro(self, until_s: float) -> float:
        """Up to a Unix time; its machine's start is billed too."""
        over_s = self.over_s(until_s)
        used_s = (until_s if over_s is None else over_s) - self.begun_s
        return self.rate * (used_s + STARTUP_S) / 3600 if used_s >= 0 else 0.0


@dataclass
class World:
    """The other sides of all targets, and the clock. `next_fault` is what meets the next submit."""

    now_s: float = 1_800_000_000.0
    rate_usd_micro: int = 600_000
    is_reachable: bool = True
    next_fault: str = ""
    bill_late_s: int = 86_400
    """How much of what was used last the provider does not tell yet."""
    jobs: dict[str, Job] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    quota_s: int = 30 * 3600

    def running(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.over_s(self.now_s) is None]

    def used_usd_micro(self, until_s: float) -> float:
        """What all jobs have really cost up to a Unix time."""
        return sum(job.cost_usd_micro(until_s) for job in self.jobs.values())


class Simulated(BaseTarget):
    """The target called `name` in `world`; azure costs money, kaggle hours of a week, the others nothing."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.capabilities = Capabilities(
            unattended=True,
            can_stop=True,
            billed=name == "azure",
            max_session_hours={"kaggle": 12.0, "colab": 11.5}.get(name),
            live_metrics=True,
            needs_network=name != "local",
            appears_s=600,
        )

    def _ask(self) -> None:
        if not self.world.is_reachable and self.capabilities.needs_network:
            raise Unreachable(f"{self.name} cannot be reached")

    # -------------------------------------------------------------------------- before the start
    def bill(self) -> Bill | None:
        self._ask()
        if self.name != "azure":
            return None
        told = int(self.world.used_usd_micro(self.world.now_s - self.world.bill_late_s))
        return Bill(0, told, {}, "the simulation", 2 * 86_400)

    def preflight(self, spec: JobSpec) -> list[Verdict]:
        self._ask()
        return []

    def quote(self, spec: JobSpec) -> Quote:
        rate = self.world.rate_usd_micro if self.name == "azure" else 0
        worst = units.cost_usd_micro(rate, spec.time_limit_s + STARTUP_S)
        quota_s = spec.time_limit_s if self.name == "kaggle" else 0
        return Quote(self.name, spec.time_limit_s, worst, rate, 1, "the simulation", "2026-11-25", quota_s)

    def render(self, spec: JobSpec, bundle: Bundle, leg_id: str, dest: Path, resume: Checkpoint | None) -> None:
        first = len((resume.folder / "metrics.jsonl").read_text().splitlines()) if resume else 0
        rate = self.world.rate_usd_micro if self.name == "azure" else 0
        write_json(dest / "job.json", {"limit_s": spec.time_limit_s, "epochs": spec.train.epochs, "first": first,
                                       "rate": rate})  # fmt: skip

    # ------------------------------------------------------------------------------- the start
    def submit(self, leg_id: str, rendered: Path) -> Handle:
        import json

        fault, self.world.next_fault = self.world.next_fault, ""
        if fault == "refused":
            raise LimitRefused("no more sessions")
        if fault == "killed before":
            raise Killed
        if fault == "lost before":
            raise SubmitUncertain("no answer came")
        self._ask()
        said: dict[str, Any] = json.loads((rendered / "job.json").read_text())
        self.world.created.append(leg_id)
        self.world.jobs[leg_id] = Job(leg_id, self.world.now_s, **said)
        if fault == "killed after":
            raise Killed
        if fault == "lost after":
            raise SubmitUncertain("no answer came")
        return Handle(self.name, leg_id)

    def find(self, leg_id: str) -> Handle | None:
        self._ask()
        return Handle(self.name, leg_id) if leg_id in self.world.jobs else None

    # ---------------------------------------------------------------------------- while it runs
    def poll(self, handle: Handle) -> Observation:
        self._ask()
        job, now_s = self.world.jobs[handle.remote_id], self.world.now_s
        epoch, over_s = job.epoch_at(now_s), job.over_s(now_s)
        elapsed_s = int((now_s if over_s is None else over_s) - job.begun_s)
        state = LegState.RUNNING
        if over_s is not None:
            state = LegState.COMPLETE if epoch >= job.epochs else LegState(job.how or "paused")
        spent = units.cost_usd_micro(job.rate, elapsed_s + STARTUP_S)
        return Observation(state, job.how, epoch, job.epochs, elapsed_s, spent)

    def logs(self, handle: Handle, follow: bool) -> Iterator[str]:
        return iter(())

    def stop(self, handle: Handle) -> None:
        self._ask()
        self.end(handle.remote_id, "paused")

    def end(self, leg_id: str, how: str) -> None:
        job = self.world.jobs[leg_id]
        if job.over_s(self.world.now_s) is None:
            job.ended_s, job.how = self.world.now_s, how

    def collect(self, handle: Handle, dest: Path) -> Artifacts:
        self._ask()
        epoch = self.world.jobs[handle.remote_id].epoch_at(self.world.now_s)
        if not epoch:
            raise NotYet("nothing yet")
        run = RunFolder(dest)
        write_atomic(run.last, "weights")
        write_atomic(run.metrics, "".join(f'{{"epoch": {at + 1}}}\n' for at in range(epoch)))
        write_manifest(run)
        return artifacts.read_artifacts(run)

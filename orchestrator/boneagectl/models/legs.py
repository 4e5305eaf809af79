"""Runs, their legs, and what is observed of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from boneagectl.errors import UsageError


class LegState(StrEnum):
    """The state of a leg. The reason is kept apart."""

    RESERVED = "reserved"  # not known to exist remotely
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"  # ended by itself or on request, saved, not complete
    COMPLETE = "complete"
    FAILED = "failed"
    LOST = "lost"  # ended without a final state: killed, preempted, rebooted
    RELEASED = "released"  # never created; its reservation was returned

    @property
    def is_over(self) -> bool:
        return self not in (LegState.RESERVED, LegState.QUEUED, LegState.RUNNING)


@dataclass(frozen=True, slots=True)
class Handle:
    """A remote object: its target, the target's id for it, and its page."""

    target: str
    remote_id: str
    url: str = ""

    def __str__(self) -> str:
        return f"{self.target}:{self.remote_id}" + (f" {self.url}" if self.url else "")

    @classmethod
    def parse(cls, text: str) -> Handle:
        """Raises UsageError where `text` is not ``TARGET:ID`` or ``TARGET:ID URL``."""
        name, _, url = text.partition(" ")
        target, colon, remote_id = name.partition(":")
        if not (target and colon and remote_id):
            raise UsageError(f"{text!r} is not a handle", "handles look like local:bone-261123-k3f9-01")
        return cls(target, remote_id, url)


@dataclass(frozen=True, slots=True)
class Observation:
    """What one poll saw. `metrics` is the newest epoch's line, where the target shows metrics live.

    `elapsed_s` None: unknown. `epochs` 0: the target does not show the total.
    """

    state: LegState
    reason: str = ""
    epoch: int = 0
    epochs: int = 0
    elapsed_s: int | None = 0
    spent_usd_micro: int = 0
    metrics: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Leg:
    """One session on one target, as recorded in the ledger."""

    leg_id: str
    run_id: str
    number: int
    target: str
    state: LegState
    reason: str
    handle: str
    epoch: int
    epochs: int
    elapsed_s: int
    time_limit_s: int
    reserved_usd_micro: int
    spent_usd_micro: int | None
    created: str


@dataclass(frozen=True, slots=True)
class Run:
    """One training that the user asked for, with its legs in order."""

    run_id: str
    config: dict[str, Any]
    data: dict[str, Any]
    pack: str
    bundle_sha256: str
    created: str
    legs: tuple[Leg, ...]

    @property
    def started_legs(self) -> int:
        """How many legs were created on a target."""
        return sum(leg.state is not LegState.RELEASED for leg in self.legs)

    @property
    def latest(self) -> Leg:
        return self.legs[-1]


@dataclass(frozen=True, slots=True)
class Relay:
    """How a run continues by itself: at most `legs` legs of at most `time_limit_s`, each on the first of `targets` that
    accepts it."""

    legs: int
    time_limit_s: int
    targets: tuple[str, ...]


def leg_id(run_id: str, number: int) -> str:
    return f"{run_id}-{number:02d}"

"""The value types: what commands pass around and what ``--json`` prints.

Every type is frozen. `as_json` turns any of them into plain JSON values; money leaves as dollars
(``*_usd``), time as seconds or hours, so that no reader needs to know how the ledger counts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from boneage_trainer.contract import TrainConfig
from boneagectl import units
from boneagectl.errors import UsageError


class LegState(StrEnum):
    """Where a leg stands. The reason is kept apart."""

    RESERVED = "reserved"  # booked; not known to exist remotely
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"  # ended by itself or on request, saved, not complete
    COMPLETE = "complete"
    FAILED = "failed"
    LOST = "lost"  # gone without a word: killed, preempted, rebooted
    RELEASED = "released"  # never came to be; its reservation was given back

    @property
    def is_over(self) -> bool:
        return self not in (LegState.RESERVED, LegState.QUEUED, LegState.RUNNING)

    @property
    def can_resume(self) -> bool:
        return self.is_over and self is not LegState.COMPLETE


@dataclass(frozen=True, slots=True)
class Handle:
    """A remote thing: which target, what the target calls it, where a person looks at it."""

    target: str
    remote_id: str
    url: str = ""

    def __str__(self) -> str:
        return f"{self.target}:{self.remote_id}" + (f" {self.url}" if self.url else "")

    @classmethod
    def parse(cls, text: str) -> Handle:
        name, _, url = text.partition(" ")
        target, colon, remote_id = name.partition(":")
        if not (target and colon and remote_id):
            raise UsageError(f"{text!r} is not a handle", "handles look like local:bone-261123-k3f9-01")
        return cls(target, remote_id, url)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a target can do, as values that planning and commands read."""

    unattended: bool
    can_stop: bool
    billed: bool
    max_session_hours: float | None
    live_metrics: bool
    needs_network: bool
    stop_keeps: bool = True
    """Whether a stopped leg leaves its checkpoint."""
    appears_s: int = 0
    """How long after a submit was cut off the leg may still come to be."""
    poll_every_s: float = 2.0
    attaches_data: bool = False
    """Whether a leg finds its images there, so that no pack need be here."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One training as asked for: config, data and target wishes, after every source is merged."""

    train: TrainConfig
    pack: Path
    data: dict[str, Any]
    target: str
    time_limit_s: int
    provenance: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Quote:
    """A target's price for one leg, at the worst the target itself will let happen.

    `quota_s` are seconds of the hours that the provider gives for a time.
    """

    target: str
    worst_s: int
    worst_usd_micro: int
    usd_micro_per_hour: int
    sessions: int
    source: str
    date: str
    quota_s: int = 0


@dataclass(frozen=True, slots=True)
class Quota:
    """What a provider itself says of the hours it gives for a time; `refresh_s` is the Unix time they come back."""

    used_s: int
    reserved_s: int
    allowed_s: int
    refresh_s: int

    @property
    def free_s(self) -> int:
        return max(0, self.allowed_s - self.used_s - self.reserved_s)


@dataclass(frozen=True, slots=True)
class Bill:
    """What a provider itself says was spent since a Unix time, by service; it tells late."""

    since_s: int
    usd_micro: int
    by_service_usd_micro: dict[str, int]
    note: str
    late_s: int = 0
    """After how long what was spent is surely in it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one limit says of a plan."""

    limit: str
    allows: bool
    detail: str


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file in the bundle."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The zip that runs on every target: same input, same sha256."""

    content: bytes = field(repr=False)
    sha256: str
    files: tuple[BundleFile, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will happen, shown before it does; the thing shown is the thing applied."""

    run_id: str
    leg_number: int
    spec: JobSpec
    quote: Quote
    verdicts: tuple[Verdict, ...]

    @property
    def leg_id(self) -> str:
        return leg_id(self.run_id, self.leg_number)

    @property
    def refusals(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if not verdict.allows]


@dataclass(frozen=True, slots=True)
class Observation:
    """What a poll saw. `metrics` is the newest epoch's line, where the target shows it live.

    `elapsed_s` None: nobody can tell any more. `epochs` 0: the target does not show how many are wanted.
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
    """One session on one target, as the ledger knows it."""

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
    """One training a user asked for, with its legs in order."""

    run_id: str
    config: dict[str, Any]
    data: dict[str, Any]
    pack: str
    bundle_sha256: str
    created: str
    legs: tuple[Leg, ...]

    @property
    def started_legs(self) -> int:
        """How many of its legs came to be."""
        return sum(leg.state is not LegState.RELEASED for leg in self.legs)

    @property
    def latest(self) -> Leg:
        return self.legs[-1]


@dataclass(frozen=True, slots=True)
class Relay:
    """How a run goes on by itself: `legs` in all at most, each `time_limit_s` at most, on the first of `targets` that
    takes it."""

    legs: int
    time_limit_s: int
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """One purse of the ledger. `cap_*` None means no cap was set.

    `quota_s` is what the provider gives until `refresh`, where it gives hours for a time; the seconds
    spent are then those of that time. `standing_usd_micro` is the part of what was spent that was paid by
    the day; `credit_usd_micro` what is left of a prepaid credit, by the last balance told, `credit_told_usd_micro`, and
    our own count since.
    """

    name: str
    cap_usd_micro: int | None
    cap_s: int | None
    spent_usd_micro: int
    spent_s: int
    reserved_usd_micro: int
    reserved_s: int
    quota_s: int | None = None
    refresh: str = ""
    standing_usd_micro: int = 0
    credit_usd_micro: int | None = None
    credit_told_usd_micro: int | None = None
    credit_ends: str = ""
    week_usd_micro: int = 0
    """What was spent in the last seven days."""
    running_usd_micro: int = 0
    running_s: int = 0
    """What legs at work have used of what is reserved for them, as far as was seen."""
    reconciled_usd_micro: int = 0
    """The part of what was spent that the provider's own bill has confirmed."""
    typical_run_usd_micro: int = 0
    typical_run_s: int = 0
    """What a run of late has cost it, on average."""
    alert_at: tuple[int, ...] = ()
    """Shares of a limit, in percent, at which to speak up."""
    at_cap: str = "refuse"
    """Whether a limit only refuses new legs, or also stops those at work before it is crossed: refuse or stop."""

    @property
    def lasts_days(self) -> float | None:
        """How long what is free lasts at the last week's rate; None where nothing is spent, or nothing is limited."""
        free = self.free_usd_micro
        return None if free is None or not self.week_usd_micro else 7 * free / self.week_usd_micro

    @property
    def free_s(self) -> int | None:
        """What may still be booked of its hours, or None where they are not limited."""
        return None if self.limit_s is None else max(0, self.limit_s - self.spent_s - self.reserved_s)

    @property
    def lasts_runs(self) -> int | None:
        """How many runs like those of late fit into what is free, whichever is less; None where that is not known."""
        parts = ((self.free_usd_micro, self.typical_run_usd_micro), (self.free_s, self.typical_run_s))
        return min((free // each for free, each in parts if free is not None and each), default=None)

    @property
    def free_usd_micro(self) -> int | None:
        """What may still be booked under the cap and the credit, or None where there is neither."""
        cap, credit = self.cap_usd_micro, self.credit_usd_micro
        limits = [None if cap is None else cap - self.spent_usd_micro, credit]
        known = [limit - self.reserved_usd_micro for limit in limits if limit is not None]
        return max(0, min(known)) if known else None

    @property
    def limit_s(self) -> int | None:
        """The smaller of cap and quota, or None where there is neither."""
        return min((limit for limit in (self.cap_s, self.quota_s) if limit is not None), default=None)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. `kind` is reserved, returned, spent, standing or reconciled; what is given back, or was
    counted too high, is below zero."""

    time: str
    account: str
    run_id: str
    leg_id: str
    kind: str
    usd_micro: int
    seconds: int
    note: str


@dataclass(frozen=True, slots=True)
class Speed:
    """What one leg measured: seconds an image by kind of epoch, one value an epoch; and what is not of the epochs.

    `load_ms` and `compute_ms` are an image's, waiting for data and computing apart; `images` an epoch's.
    """

    target: str
    machine: str
    work: str
    images: int
    startup_s: float
    finish_s: float
    load_ms: float
    compute_ms: float
    samples: dict[str, list[float]] = field(default_factory=dict)
    date: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of doctor. `level` is ok, warn or bad; `fix` is what to type, where something helps."""

    level: str
    what: str
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a next leg goes on from: the collected `folder` of the leg that the target calls `handle`."""

    folder: Path
    handle: Handle


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What came back from a leg: the folder, and sha256 by file name.

    `unlisted` names the files that differ from the leg's manifest: it was killed, or is still at work,
    between writing them and listing them.
    """

    folder: Path
    sha256: dict[str, str]
    unlisted: tuple[str, ...]


def leg_id(run_id: str, number: int) -> str:
    return f"{run_id}-{number:02d}"


def format_iso(time_s: float) -> str:
    """A Unix time as UTC text."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_iso(text: str) -> float:
    """The Unix time of what `iso` wrote."""
    return datetime.fromisoformat(text).timestamp()


def as_json(value: Any) -> Any:
    """Any value type as plain JSON values, in the documented units."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return dict(_field_json(name, item) for name, item in pairs if name != "content")
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _usd_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: units.to_usd(item) for key, item in value.items()}
    return None if value is None else units.to_usd(value)


def _field_json(name: str, value: Any) -> tuple[str, Any]:
    if "usd_micro" in name:
        return name.replace("usd_micro", "usd"), _usd_json(value)
    return name, as_json(value)

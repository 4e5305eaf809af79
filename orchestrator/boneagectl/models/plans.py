"""What planning and targets exchange: specs, prices, plans, bundles, checkpoints and outputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boneage_trainer.contract import TrainConfig
from boneagectl.models.legs import Handle, leg_id


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
    """How long after an interrupted submit the leg may still be created."""
    poll_every_s: float = 2.0
    attaches_data: bool = False
    """Whether a leg finds its images there, so that no pack is needed here."""


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One run as requested: config, data and target, after all sources are merged."""

    train: TrainConfig
    pack: Path
    data: dict[str, Any]
    target: str
    time_limit_s: int
    provenance: dict[str, Any]
    source_diff: bytes = field(default=b"", repr=False)
    """How the bundled code differs from the commit in `provenance`."""


@dataclass(frozen=True, slots=True)
class Quote:
    """A target's price for one leg, at the maximum that the target itself enforces.

    `quota_s` are seconds of the provider's quota.
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
    """A provider's own count of the hours it gives per period; `refresh_s` is the Unix time of the next refresh."""

    used_s: int
    reserved_s: int
    allowed_s: int
    refresh_s: int

    @property
    def free_s(self) -> int:
        return max(0, self.allowed_s - self.used_s - self.reserved_s)


@dataclass(frozen=True, slots=True)
class Bill:
    """A provider's own count of what was spent since a Unix time, by service; it arrives late."""

    since_s: int
    usd_micro: int
    by_service_usd_micro: dict[str, int]
    note: str
    late_s: int = 0
    """After how many seconds the bill certainly contains what was spent."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of one check of a plan; `next_step` is what to do about a refusal."""

    limit: str
    allows: bool
    detail: str
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class BundleFile:
    """One file in the bundle."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """The zip that a leg executes: same input, same sha256."""

    content: bytes = field(repr=False)
    sha256: str
    files: tuple[BundleFile, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What will happen; what is shown is what is submitted."""

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
class Checkpoint:
    """What a next leg resumes from: the collected `folder` of the leg that the target calls `handle`."""

    folder: Path
    handle: Handle


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What was collected from a leg: the folder, and sha256 by file name.

    `unlisted` names the files that differ from the leg's manifest: the leg was killed, or is still running, between
    writing and listing them.
    """

    folder: Path
    sha256: dict[str, str]
    unlisted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Speed:
    """What one leg measured. `samples`: seconds per image by kind of epoch, one value per epoch.

    `load_ms` and `compute_ms` are per image, waiting for data and computing apart; `images` per epoch; `startup_s` and
    `finish_s` the time before the first and after the last epoch.
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
    """One line of doctor. `level` is ok, warn or bad; `fix` is the command that helps, if any."""

    level: str
    what: str
    detail: str
    fix: str = ""

"""What a training would take on each target, told before any of it is paid for; and which target to take."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boneagectl import planner, throughput
from boneagectl.config import Config
from boneagectl.errors import BoneagectlError, LimitRefused
from boneagectl.ledger import accounts
from boneagectl.models import Account, JobSpec, format_iso, parse_iso
from boneagectl.targets import NAMES
from boneagectl.targets.base import BaseTarget
from boneagectl.throughput import Estimate

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_USED_SHARE = 0.9
"""Of a session's limit: the rest is kept for saving."""
_HOUR_USD_MICRO = 250_000
"""What an hour of waiting counts for, where cheap and fast are balanced."""
_STARTUP_S = {"local": 15.0, "kaggle": 180.0, "colab": 300.0, "azure": 900.0}
"""Until the first epoch where nothing was measured; guesses on the safe side."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One target for one training. Times are None where nobody can tell; `blocks` says what forbids it, in words;
    one that `needs_you`, to open a notebook, is never recommended."""

    target: str
    time_s: float | None
    low_s: float | None
    high_s: float | None
    sessions: int
    usd_micro: int
    quota_s: int
    done_by: str
    blocks: tuple[str, ...]
    basis: str
    is_rough: bool
    needs_you: bool = False
    is_recommended: bool = False


def compare_targets(flow: Workflow, names: tuple[str, ...] = NAMES, asks: bool = False) -> list[Choice]:
    """Each target's choice, with one recommended by the setting `prefer`, where any is possible.

    Providers are asked what they would refuse only where that is wished for with `asks`.
    """
    found = [_choice(flow, name, asks) for name in names]
    possible = [one for one in found if not (one.blocks or one.needs_you or one.time_s is None)]
    recommend_target = min(possible, key=lambda one: _rank(one, flow.config["prefer"]), default=None)
    return [dataclasses.replace(one, is_recommended=one is recommend_target) for one in found]


def recommend_target(flow: Workflow) -> str:
    """The recommended target.

    Raises:
        LimitRefused: none is possible, or nothing is known of any.
    """
    found = compare_targets(flow)
    for one in found:
        if one.is_recommended:
            return one.target
    why = "; ".join(f"{one.target}: {', '.join(one.blocks) or 'nothing was measured'}" for one in found)
    raise LimitRefused(f"no target can be chosen: {why}", "boneagectl calibrate --target NAME, or name a --target")


def _rank(one: Choice, prefer: str) -> tuple[float, float]:
    time_s, usd = one.time_s or 0.0, float(one.usd_micro)
    if prefer == "fastest":
        return time_s, usd
    if prefer == "balanced":
        return usd + time_s / 3600 * _HOUR_USD_MICRO, time_s
    return usd, time_s


def _choice(flow: Workflow, name: str, asks: bool) -> Choice:
    """From the settings, the ledger and what was measured."""
    try:
        config = flow.config.with_values(target=name)
        target = flow.target(name)
        spec = planner.build_spec(config, target.capabilities.attaches_data)
        estimate = _estimate(flow, config, name, spec)
        if estimate is None:
            return _unknown(name, f"nothing measured: boneagectl calibrate --target {name}", ())
        choice = _timed(target, spec, estimate, flow.ledger.account(name))
        said = [
            planner.check_disk(flow.home.root),
            *(target.preflight(spec) if asks and target.capabilities.needs_network else ()),
        ]
        refused = (f"{verdict.limit}: {verdict.detail}" for verdict in said if not verdict.allows)
        return dataclasses.replace(choice, blocks=(*choice.blocks, *refused))
    except BoneagectlError as error:
        return _unknown(name, "", (error.message,))


def _unknown(name: str, basis: str, blocks: tuple[str, ...]) -> Choice:
    return Choice(name, None, None, None, 0, 0, 0, "", blocks, basis, False)


def _estimate(flow: Workflow, config: Config, name: str, spec: JobSpec) -> Estimate | None:
    known = flow.ledger.speeds(name, throughput.workload_id(spec.train, spec.data["image_size_px"]))
    if found := throughput.estimate(known, spec.train, spec.data):
        return found
    gpu, count = _gpu(config, name)
    return throughput.estimate_from_table(gpu, count, spec.train, spec.data, _STARTUP_S[name]) if gpu else None


def _gpu(config: Config, name: str) -> tuple[str, int]:
    """Which GPU the settings ask for, and how many; none where only a measurement tells."""
    if name == "kaggle":
        return ("T4", 2) if config["targets.kaggle.machine_shape"] == "NvidiaTeslaT4" else ("", 0)
    if name == "colab":
        return config["targets.colab.gpu"], 1
    if name == "azure":
        size = config["targets.azure.size"]
        known = next((one for one in ("T4", "A100", "H100", "A10") if f"_{one}_" in f"{size}_"), "")
        return known, config["targets.azure.nodes"]
    return "", 0


def _timed(target: BaseTarget, spec: JobSpec, estimate: Estimate, account: Account) -> Choice:
    hours = target.capabilities.max_session_hours
    limit_s = min(spec.time_limit_s, int(hours * 3600)) if hours is not None else spec.time_limit_s
    sessions = _sessions(estimate.seconds, estimate.startup_s, limit_s)
    extra_s = (sessions - 1) * estimate.startup_s
    leg_s = min(limit_s, math.ceil((estimate.high_s + extra_s) / sessions / _USED_SHARE))
    quote = target.quote(dataclasses.replace(spec, time_limit_s=leg_s))
    usd_micro, quota_s = quote.worst_usd_micro * sessions, quote.quota_s * sessions
    blocks = tuple(accounts.refusals(_without_quota(account), usd_micro, leg_s * sessions, int(time.time())))
    total_s = estimate.seconds + extra_s
    done_s = time.time() + total_s + _wait_s(account, quota_s)
    return Choice(target.name, total_s, estimate.low_s + extra_s, estimate.high_s + extra_s, sessions, usd_micro,
                  quota_s, format_iso(done_s), blocks, estimate.basis, estimate.is_rough,
                  not target.capabilities.unattended)  # fmt: skip


def _sessions(needed_s: float, startup_s: float, limit_s: int) -> int:
    usable_s = max(60.0, limit_s * _USED_SHARE - startup_s)
    return max(1, math.ceil((needed_s - startup_s) / usable_s))


def _without_quota(account: Account) -> Account:
    """Hours that come back only make one wait."""
    return dataclasses.replace(account, quota_s=None)


def _wait_s(account: Account, quota_s: int) -> float:
    """Until the provider gives the hours that are missing; each refresh gives all of them again."""
    if not account.quota_s or not account.refresh:
        return 0.0
    missing_s = quota_s - max(0, account.quota_s - account.spent_s - account.reserved_s)
    if missing_s <= 0:
        return 0.0
    weeks = math.ceil(missing_s / account.quota_s)
    return max(0.0, parse_iso(account.refresh) - time.time()) + (weeks - 1) * 7 * 86_400

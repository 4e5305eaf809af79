"""Estimates what a run takes on each target, before any of it is paid for, and recommends a target."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boneagectl import planner, throughput
from boneagectl.config import Config
from boneagectl.errors import BoneagectlError, LimitRefused
from boneagectl.ledger.accounts import Account, check_account
from boneagectl.models import JobSpec, format_iso
from boneagectl.targets import NAMES
from boneagectl.targets.base import BaseTarget
from boneagectl.throughput import Estimate

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_USED_SHARE = 0.9
"""Of a session's limit; the rest is for saving."""
_HOUR_USD_MICRO = 250_000
"""What an hour of waiting counts, where cost and time are balanced."""
_STARTUP_S = {"local": 15.0, "kaggle": 180.0, "colab": 300.0, "azure": 900.0}
"""Until the first epoch where nothing was measured; high guesses."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One target for one run. Times are None where unknown; `blocks` says what forbids it.

    One that `needs_you`, to open a notebook, is never recommended.
    """

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
    """Each target's choice; one is recommended by the setting `prefer`, if any is possible.

    Only with `asks` the providers are asked what they would refuse.
    """
    choices = [_choose(flow, name, asks) for name in names]
    possible = [choice for choice in choices if not (choice.blocks or choice.needs_you or choice.time_s is None)]
    best = min(possible, key=lambda choice: _rank(choice, flow.config["prefer"]), default=None)
    return [dataclasses.replace(choice, is_recommended=choice is best) for choice in choices]


def recommend_target(flow: Workflow) -> str:
    """The recommended target.

    Raises:
        LimitRefused: no target can run this, or none was benchmarked.
    """
    choices = compare_targets(flow)
    for choice in choices:
        if choice.is_recommended:
            return choice.target
    why = "; ".join(f"{choice.target}: {', '.join(choice.blocks) or 'not benchmarked'}" for choice in choices)
    raise LimitRefused(f"no target can be recommended: {why}", "boneagectl calibrate --target NAME, or set --target")


def _rank(choice: Choice, prefer: str) -> tuple[float, float]:
    time_s, usd_micro = choice.time_s or 0.0, float(choice.usd_micro)
    if prefer == "fastest":
        return time_s, usd_micro
    if prefer == "balanced":
        return usd_micro + time_s / 3600 * _HOUR_USD_MICRO, time_s
    return usd_micro, time_s


def _choose(flow: Workflow, name: str, asks: bool) -> Choice:
    """From the settings, the ledger and what was measured."""
    try:
        config = flow.config.with_values(target=name)
        target = flow.target(name)
        spec = planner.build_spec(config, target.capabilities.attaches_data)
        estimate = _estimate(flow, config, name, spec)
        if estimate is None:
            return _unknown(name, f"not benchmarked; run `boneagectl calibrate --target {name}`", ())
        choice = _estimated_choice(target, spec, estimate, flow.ledger.account(name))
        checks = [planner.check_disk(flow.home.root)]
        if asks and target.capabilities.needs_network:
            checks += target.preflight(spec)
        refused = (f"{verdict.limit}: {verdict.detail}" for verdict in checks if not verdict.allows)
        return dataclasses.replace(choice, blocks=(*choice.blocks, *refused))
    except BoneagectlError as error:
        return _unknown(name, "", (error.message,))


def _unknown(name: str, basis: str, blocks: tuple[str, ...]) -> Choice:
    return Choice(name, None, None, None, 0, 0, 0, "", blocks, basis, False)


def _estimate(flow: Workflow, config: Config, name: str, spec: JobSpec) -> Estimate | None:
    speeds = flow.ledger.speeds(name, throughput.workload_id(spec.train, spec.data["image_size_px"]))
    if measured := throughput.estimate(speeds, spec.train, spec.data):
        return measured
    gpu, count = _gpu(config, name)
    return throughput.estimate_from_table(gpu, count, spec.train, spec.data, _STARTUP_S[name]) if gpu else None


def _gpu(config: Config, name: str) -> tuple[str, int]:
    """The GPU that the settings request, and how many; none where only a measurement helps."""
    if name == "kaggle":
        return ("T4", 2) if config["targets.kaggle.machine_shape"] == "NvidiaTeslaT4" else ("", 0)
    if name == "colab":
        return config["targets.colab.gpu"], 1
    if name == "azure":
        size = config["targets.azure.size"]
        gpu = next((gpu for gpu in ("T4", "A100", "H100", "A10") if f"_{gpu}_" in f"{size}_"), "")
        return gpu, config["targets.azure.nodes"]
    return "", 0


def _estimated_choice(target: BaseTarget, spec: JobSpec, estimate: Estimate, account: Account) -> Choice:
    hours = target.capabilities.max_session_hours
    limit_s = min(spec.time_limit_s, int(hours * 3600)) if hours is not None else spec.time_limit_s
    usable_s = max(60.0, limit_s * _USED_SHARE - estimate.startup_s)
    sessions = max(1, math.ceil((estimate.seconds - estimate.startup_s) / usable_s))
    extra_s = (sessions - 1) * estimate.startup_s
    leg_s = min(limit_s, math.ceil((estimate.high_s + extra_s) / sessions / _USED_SHARE))
    quote, now_s = target.quote(dataclasses.replace(spec, time_limit_s=leg_s)), time.time()
    usd_micro, quota_s = quote.worst_usd_micro * sessions, quote.quota_s * sessions
    without_quota = dataclasses.replace(account, quota_s=None)  # an exhausted quota only makes the run wait
    checks = check_account(without_quota, usd_micro, leg_s * sessions, now_s)
    total_s = estimate.seconds + extra_s
    return Choice(
        target.name,
        total_s,
        estimate.low_s + extra_s,
        estimate.high_s + extra_s,
        sessions,
        usd_micro,
        quota_s,
        format_iso(now_s + total_s + account.quota_wait_s(quota_s, now_s)),
        tuple(verdict.detail for verdict in checks if not verdict.allows),
        estimate.basis,
        estimate.is_rough,
        needs_you=not target.capabilities.unattended,
    )

"""One run in a comparison: its numbers under stable names, with units; None is "not known", never 0."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import RunFolder
from boneagectl.report.data import ReportData, load_run
from boneagectl.report.metrics import CI95
from boneagectl.report.paired import Tested, read_tested
from boneagectl.report.run_page import gpu
from boneagectl.report.text import UNKNOWN, number, numbers, section

_SUMS = ("compile_s", "load_s", "compute_s", "validate_s", "checkpoint_s")
_TEST = ("n", "mae_months", "rmse_months", "r2", "bias_months", "within_6_months", "within_12_months",
         "within_24_months", "baseline_median_mae_months")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Compared:
    """A run's `values` by column, its settings, its test images and its validation errors by epoch."""

    run_id: str
    values: Mapping[str, Any]
    config: Mapping[str, Any]
    tested: Tested
    curve: tuple[float | None, ...]


def load(folder: RunFolder, facts: Mapping[str, Any]) -> Compared:
    """Reads the run in `folder`.

    Raises:
        ContractError: a file is there and broken.
    """
    data = load_run(folder, facts, with_predictions=False)
    curve = tuple(number(epoch.get("val_mae_months")) for epoch in data.epochs)
    return Compared(data.run_id, values(data), section(facts.get("config")), read_tested(folder), curve)


def values(data: ReportData) -> dict[str, Any]:
    """The run's numbers in the order of the tables; units stand in the names."""
    cost_usd, epochs = number(data.facts.get("cost_usd")), len(data.epochs) or None
    test = _test(data)
    return {
        "run_id": data.run_id,
        "target": _targets(data),
        "state": data.state.get("state"),
        "gpu": None if gpu(data) == UNKNOWN else gpu(data),
        "epochs": epochs,
        **test,
        **_times(data),
        **_sessions(data),
        "cost_usd": cost_usd,
        "quota_hours": number(data.facts.get("quota_hours")),
        "usd_per_epoch": cost_usd / epochs if cost_usd is not None and epochs else None,
        "usd_per_month_gained": _per_gained(cost_usd, test["gained_months"]),
        **_identity(data),
    }


def _test(data: ReportData) -> dict[str, Any]:
    own = data.set_of("test")
    known = {key: number(own.get(key)) for key in _TEST}
    low, high = numbers(own.get(CI95), 2) or (None, None)
    mae, baseline = known["mae_months"], known["baseline_median_mae_months"]
    gained = baseline - mae if mae is not None and baseline is not None else None
    return {**known, "mae_ci95_low_months": low, "mae_ci95_high_months": high, "gained_months": gained}


def _per_gained(cost_usd: float | None, gained_months: float | None) -> float | None:
    """Dollars for each month below the median baseline; None too where nothing was gained."""
    return None if cost_usd is None or gained_months is None or gained_months <= 0 else cost_usd / gained_months


def _started(data: ReportData) -> list[Mapping[str, Any]]:
    """The legs that came to be."""
    legs = map(section, data.facts.get("legs") or [])
    return [leg for leg in legs if leg.get("state") not in ("released", "reserved")]


def _targets(data: ReportData) -> str | None:
    return " + ".join(dict.fromkeys(str(leg.get("target")) for leg in _started(data))) or None


def _sessions(data: ReportData) -> dict[str, Any]:
    """How many sessions the run took, and how many of them ended before it was complete."""
    legs = _started(data)
    broken = sum(leg.get("state") in ("paused", "failed", "lost") for leg in legs)
    return {"sessions": len(legs) or None, "interruptions": broken if legs else None}


def _times(data: ReportData) -> dict[str, Any]:
    total_s = sum(number(leg.get("elapsed_s")) or 0.0 for leg in _started(data)) or None
    parts = {
        "prepare_s": _outside_s(data),
        "startup_s": _startup_s(data),
        **{key: data.total_s(key) for key in _SUMS},
        "evaluate_s": number(section(data.environment.get("times")).get("evaluate_s")),
    }
    rest_s = None if total_s is None else max(0.0, total_s - sum(value or 0.0 for value in parts.values()))
    means = {key: _mean(data, key) for key in ("epoch_s", "load_ms_per_image", "compute_ms_per_image")}
    return {"total_s": total_s, **parts, "rest_s": rest_s, **means}


def _mean(data: ReportData, key: str) -> float | None:
    known = [value for epoch in data.epochs if (value := number(epoch.get(key))) is not None]
    return statistics.fmean(known) if known else None


def _outside_s(data: ReportData) -> float | None:
    """Session time beside the trainer's own: the machine's set-up, making the pack, packing the results.

    None unless every leg tells when its trainer began and ended.
    """
    found = [(number(leg.get("elapsed_s")), number(leg.get("trainer_s"))) for leg in _started(data)]
    known = [max(0.0, total - own) for total, own in found if total is not None and own is not None]
    return sum(known) if known and len(known) == len(found) else None


def _startup_s(data: ReportData) -> float | None:
    """From each leg's start of the trainer to its first epoch: imports, weights, measuring the device."""
    seen: dict[str, float | None] = {}
    for epoch in data.epochs:
        until_s, epoch_s = number(epoch.get("elapsed_s")), number(epoch.get("epoch_s"))
        began_s = None if until_s is None or epoch_s is None else max(0.0, until_s - epoch_s)
        seen.setdefault(str(epoch.get("leg")), began_s)
    known = [value for value in seen.values() if value is not None]
    return sum(known) if known and len(known) == len(seen) else None


def _identity(data: ReportData) -> dict[str, Any]:
    """What must be equal for a fair comparison."""
    config = section(data.facts.get("config"))
    told = (section(data.facts.get("data")), section(data.environment.get("data")))
    return {
        "settings_sha256": _settings_sha256(config) if config else None,
        "data_fingerprint": next((str(one["fingerprint"]) for one in told if one.get("fingerprint")), None),
        "test_sha256": section(data.evaluation.get("split")).get("sha256") or None,
        "labels": data.evaluation.get("labels") or None,
    }


def _settings_sha256(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

"""One run of a comparison: its numbers under stable names, with units; None is unknown, never 0."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import RunFolder
from boneagectl.report.data import ReportData, load_run
from boneagectl.report.evaluation import ComputedMetrics
from boneagectl.report.metrics import CI95
from boneagectl.report.run_page import describe_gpu
from boneagectl.report.text import UNKNOWN, number, numbers, section

MEASURED = ("n", "mae_months", "rmse_months", "r2", "bias_months", "within_6_months", "within_12_months",
            "within_24_months")  # fmt: skip
"""The metrics of the test set that a comparison shows, of those that predictions alone give."""
_EPOCH_SUMS = ("compile_s", "load_s", "compute_s", "validate_s", "checkpoint_s")


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """A run's `values` by column, its settings, and its validation errors by epoch in months."""

    run_id: str
    values: Mapping[str, Any]
    config: Mapping[str, Any]
    curve: tuple[float | None, ...]


def load_compared(folder: RunFolder, facts: Mapping[str, Any], computed: ComputedMetrics | None = None) -> ComparedRun:
    """Reads the run in `folder`.

    Raises:
        ContractError: a file is there and broken.
    """
    data = load_run(folder, facts, computed, with_predictions=False)
    curve = tuple(number(epoch.get("val_mae_months")) for epoch in data.epochs)
    return ComparedRun(data.run_id, run_values(data), section(facts.get("config")), curve)


def run_values(data: ReportData) -> dict[str, Any]:
    """The run's numbers in the order of the tables, with units in the names."""
    cost_usd, epochs, gpu = number(data.facts.get("cost_usd")), len(data.epochs) or None, describe_gpu(data)
    legs, test = _started_legs(data), accuracy_values(data)
    gained = test["gained_months"]
    # None too where the model is no better than its baseline.
    usd_per_month = cost_usd / gained if cost_usd is not None and gained is not None and gained > 0 else None
    return {
        "run_id": data.run_id,
        "target": " + ".join(dict.fromkeys(str(leg.get("target")) for leg in legs)) or None,
        "state": data.state.get("state"),
        "gpu": None if gpu == UNKNOWN else gpu,
        "epochs": epochs,
        **test,
        **time_values(data),
        # How many sessions the run took, and how many of them ended before it was complete.
        "sessions": len(legs) or None,
        "interruptions": sum(leg.get("state") in ("paused", "failed", "lost") for leg in legs) if legs else None,
        "cost_usd": cost_usd,
        "quota_hours": number(data.facts.get("quota_hours")),
        "usd_per_epoch": cost_usd / epochs if cost_usd is not None and epochs else None,
        "usd_per_month_gained": usd_per_month,
        **identity_values(data),
    }


def accuracy_values(data: ReportData) -> dict[str, Any]:
    """The metrics of the test set, and the MAE improvement over the median baseline in months."""
    metrics = data.set_metrics("test")
    known = {key: number(metrics.get(key)) for key in (*MEASURED, "baseline_median_mae_months")}
    low, high = numbers(metrics.get(CI95), 2) or (None, None)
    mae, baseline = known["mae_months"], known["baseline_median_mae_months"]
    gained = baseline - mae if mae is not None and baseline is not None else None
    return {**known, "mae_ci95_low_months": low, "mae_ci95_high_months": high, "gained_months": gained}


def _started_legs(data: ReportData) -> list[Mapping[str, Any]]:
    legs = map(section, data.facts.get("legs") or [])
    return [leg for leg in legs if leg.get("state") not in ("released", "reserved")]


def time_values(data: ReportData) -> dict[str, Any]:
    """The total time in seconds, its parts, which add up to it, and means over the epochs."""
    total_s = sum(number(leg.get("elapsed_s")) or 0.0 for leg in _started_legs(data)) or None
    parts = {
        "prepare_s": _outside_trainer_s(data),
        "startup_s": _startup_s(data),
        **{key: data.total_s(key) for key in _EPOCH_SUMS},
        "evaluate_s": number(section(data.environment.get("times")).get("evaluate_s")),
    }
    rest_s = None if total_s is None else max(0.0, total_s - sum(value or 0.0 for value in parts.values()))
    means = {key: data.epoch_mean(key) for key in ("epoch_s", "load_ms_per_image", "compute_ms_per_image")}
    return {"total_s": total_s, **parts, "rest_s": rest_s, **means}


def _outside_trainer_s(data: ReportData) -> float | None:
    """Session time outside the trainer: the machine's set-up, making the pack, uploading the outputs.

    None unless it is known for every leg when its trainer started and ended.
    """
    times = [(number(leg.get("elapsed_s")), number(leg.get("trainer_s"))) for leg in _started_legs(data)]
    known = [max(0.0, total - trainer) for total, trainer in times if total is not None and trainer is not None]
    return sum(known) if known and len(known) == len(times) else None


def _startup_s(data: ReportData) -> float | None:
    """From each leg's start of the trainer to its first epoch: imports, weights, autotune."""
    by_leg: dict[str, float | None] = {}
    for epoch in data.epochs:
        end_s, epoch_s = number(epoch.get("elapsed_s")), number(epoch.get("epoch_s"))
        start_s = None if end_s is None or epoch_s is None else max(0.0, end_s - epoch_s)
        by_leg.setdefault(str(epoch.get("leg")), start_s)
    known = [value for value in by_leg.values() if value is not None]
    return sum(known) if known and len(known) == len(by_leg) else None


def identity_values(data: ReportData) -> dict[str, Any]:
    """What must be equal for a fair comparison."""
    config = section(data.facts.get("config"))
    settings = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest() if config else None
    sources = (section(data.facts.get("data")), section(data.environment.get("data")))
    return {
        "settings_sha256": settings,
        "data_fingerprint": next((str(own["fingerprint"]) for own in sources if own.get("fingerprint")), None),
        "test_sha256": section(data.evaluation.get("split")).get("sha256") or None,
        "labels": data.evaluation.get("labels") or None,
    }

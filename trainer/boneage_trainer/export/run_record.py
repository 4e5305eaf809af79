"""A run as an experiment tracker stores it: settings, metrics by epoch, metrics of the evaluated sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import ContractError, RunFolder, parse_object, read_metrics
from boneage_trainer.evaluation.model_card import get_nested
from boneage_trainer.train import checkpoint

_NOT_METRICS = ("epoch", "time_s")
_MLFLOW_STATUS = {"complete": "FINISHED", "failed": "FAILED", "running": "RUNNING"}


@dataclass(frozen=True, slots=True)
class MetricValue:
    """The value of one metric in one epoch; `time_s` is in seconds since 1970."""

    name: str
    value: float
    epoch: int
    time_s: float


@dataclass(frozen=True, slots=True)
class RunRecord:
    """`status` is one of MLflow's; `metrics` are sorted by epoch, those of the evaluated sets last."""

    name: str
    status: str
    started_s: float
    ended_s: float
    settings: dict[str, str]
    facts: dict[str, str]
    metrics: list[MetricValue]


def read_record(run: RunFolder, name: str | None) -> RunRecord:
    """The record of `run`, called `name` or by the run's own id.

    Raises:
        ContractError: it has no epochs.
    """
    state = _read_json(run, "state")
    epochs = read_metrics(run.metrics)
    for epoch in epochs:  # early trainers did not write the time, so it is computed from the start of the leg
        epoch.setdefault("elapsed_s", 0.0)
        epoch.setdefault("time_s", state.get("started_s", 0.0) + epoch["elapsed_s"])
    if not epochs:
        raise ContractError(f"{run.root} has no epochs ({run.metrics.name}); there is nothing to log")
    first, last = epochs[0], epochs[-1]
    metrics = [
        MetricValue(key, float(value), epoch["epoch"], epoch["time_s"])
        for epoch in epochs
        for key, value in epoch.items()
        if key not in _NOT_METRICS and _is_number(value)
    ]
    # Those of the evaluated sets, e.g. test_mae_months, are of the model that was kept.
    sets = get_nested(_read_json(run, "evaluation"), "sets")
    metrics += [
        MetricValue(f"{set_name}_{key}", float(value), last["epoch"], last["time_s"])
        for set_name in sets
        for key, value in get_nested(sets, set_name).items()
        if _is_number(value)
    ]
    # The run's id is that of its leg without the number, as in first-run-01.
    own_name = re.sub(r"-\d\d+$", "", str(state.get("leg") or "")) or run.root.resolve().name
    # Settings are in the checkpoint only; a run folder may be without.
    train = get_nested(checkpoint.read_notes(run.last), "job", "train") if run.last.exists() else {}
    return RunRecord(
        name or own_name, _MLFLOW_STATUS.get(str(state.get("state")), "KILLED"), first["time_s"] - first["elapsed_s"],
        last["time_s"], {key: str(value) for key, value in sorted(train.items())},
        _facts(_read_json(run, "environment")), metrics,
    )  # fmt: skip


def _read_json(run: RunFolder, name: str) -> dict[str, Any]:
    path = getattr(run, name)
    return parse_object(path.read_text(encoding="utf-8"), str(path)) if path.exists() else {}


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    gpus = ", ".join(str(gpu.get("name")) for gpu in environment.get("gpus") or [])
    facts = {
        **{f"data_{key}": value for key, value in get_nested(environment, "data").items()},
        **get_nested(environment, "provenance"),
        **{key: environment.get(key) for key in ("python", "cpu", "backend", "bundle_sha256")},
        **get_nested(environment, "packages"), "gpu": gpus or None,
    }  # fmt: skip
    return {key: str(value) for key, value in facts.items() if value is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

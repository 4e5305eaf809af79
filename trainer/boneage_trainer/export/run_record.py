"""What a run folder tells an experiment tracker: settings, figures by epoch, figures of the test set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import ContractError, RunFolder, parse_object, read_metrics
from boneage_trainer.evaluation.model_card import part
from boneage_trainer.train import checkpoint

_NO_FIGURES = ("epoch", "time_s")
_STATES = {"complete": "FINISHED", "failed": "FAILED", "running": "RUNNING"}


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    epoch: int
    time_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """`status` is MLflow's word; `figures` are in the order of their epochs, those of the test set last."""

    name: str
    status: str
    began_s: float
    ended_s: float
    settings: dict[str, str]
    facts: dict[str, str]
    figures: list[Figure]


def of(run: RunFolder, name: str | None) -> Record:
    """The record of `run`, called `name` or by the run's own id.

    Raises:
        ContractError: it has no epoch to show.
    """
    state = _object(run, "state")
    lines = [_dated(line, state) for line in read_metrics(run.metrics)]
    if not lines:
        raise ContractError(f"{run.root} has no epochs ({run.metrics.name}), so there is nothing to hand over")
    first, last = lines[0], lines[-1]
    environment = _object(run, "environment")
    began_s = first["time_s"] - first["elapsed_s"]
    figures = [figure for line in lines for figure in _of_epoch(line)]
    figures += _of_sets(_object(run, "evaluation"), last["epoch"], last["time_s"])
    return Record(
        name or _own_name(run, state), _STATES.get(str(state.get("state")), "KILLED"), began_s, last["time_s"],
        _settings(run), dict(_facts(environment)), figures,
    )  # fmt: skip


def _dated(line: dict[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """An epoch's line; where it does not say when it was, as by early trainers, the leg's start counts."""
    elapsed_s = line.get("elapsed_s", 0.0)
    return {**line, "elapsed_s": elapsed_s, "time_s": line.get("time_s", state.get("started_s", 0.0) + elapsed_s)}


def _own_name(run: RunFolder, state: Mapping[str, Any]) -> str:
    """The id of the run that its leg belongs to, as in ``first-run-01``; else the folder's name."""
    leg = str(state.get("leg") or "")
    return re.sub(r"-\d\d+$", "", leg) or run.root.resolve().name


def _object(run: RunFolder, name: str) -> dict[str, Any]:
    path = getattr(run, name)
    return parse_object(path.read_text(encoding="utf-8"), str(path)) if path.exists() else {}


def _settings(run: RunFolder) -> dict[str, str]:
    """The training's, as its checkpoint knows them; none where that was not brought along."""
    train = part(checkpoint.read_notes(run.last), "job", "train") if run.last.exists() else {}
    return {key: str(value) for key, value in sorted(train.items())}


def _facts(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    gpus = ", ".join(str(gpu.get("name")) for gpu in environment.get("gpus") or [])
    found = {
        **{f"data_{key}": value for key, value in part(environment, "data").items()},
        **part(environment, "provenance"),
        **{key: environment.get(key) for key in ("python", "cpu", "backend", "bundle_sha256")},
        **part(environment, "packages"), "gpu": gpus or None,
    }  # fmt: skip
    yield from ((key, str(value)) for key, value in found.items() if value is not None)


def _of_epoch(line: Mapping[str, Any]) -> Iterator[Figure]:
    for key, value in line.items():
        if key not in _NO_FIGURES and _is_number(value):
            yield Figure(key, float(value), line["epoch"], line["time_s"])


def _of_sets(evaluation: Mapping[str, Any], epoch: int, time_s: float) -> list[Figure]:
    """Those of each evaluated set, e.g. ``test_mae_months``; all are of the model that was kept."""
    return [
        Figure(f"{name}_{key}", float(value), epoch, time_s)
        for name in part(evaluation, "sets")
        for key, value in part(evaluation, "sets", name).items()
        if _is_number(value)
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""What a report is made from: the files of one run folder and the caller's facts about the run."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boneage_trainer.contract import RunFolder, read_metrics
from boneagectl.report.evaluation import SETS, ComputedMetrics, fill_missing, read_object
from boneagectl.report.text import number, section


@dataclass(frozen=True, slots=True)
class Prediction:
    """One radiograph with its reference age and its predicted age; NaN where one is not a number."""

    id: str
    split: str
    male: bool
    boneage_months: float
    predicted_months: float

    @property
    def error_months(self) -> float:
        return self.predicted_months - self.boneage_months

    @property
    def is_usable(self) -> bool:
        return math.isfinite(self.error_months)


@dataclass(frozen=True, slots=True)
class ReportData:
    """One run, read once. An object that is not there yet is empty; `missing` names the files.

    `facts` is the caller's: ``run_id``, ``legs``, ``cost_usd``, ``quota_hours``, ``config``,
    ``bundle_sha256``, ``command``, ``samples_png`` (base64) and ``accounts`` (what is left of those its
    legs used, as `burndown.limit_series` makes them), each of which may be absent. `is_computed` says whether
    the trainer's module added metrics that the evaluation lacked, `problem` why it could not.
    """

    facts: Mapping[str, Any]
    epochs: tuple[Mapping[str, Any], ...]
    predictions: tuple[Prediction, ...]
    evaluation: Mapping[str, Any]
    environment: Mapping[str, Any]
    state: Mapping[str, Any]
    missing: tuple[str, ...]
    is_computed: bool = False
    problem: str = ""

    @property
    def run_id(self) -> str:
        return str(self.facts.get("run_id") or "unnamed")

    @property
    def set_name(self) -> str | None:
        """The set the figures show: the test set; before there is one the validation set; else none."""
        known = {row.split for row in self.predictions}
        sets = section(self.evaluation.get("sets"))
        return next((name for name in SETS if section(sets.get(name)) or name in known), None)

    @property
    def set_names(self) -> list[str]:
        """The evaluated sets, in the order of `SETS`."""
        return [name for name in SETS if self.set_metrics(name)]

    def set_metrics(self, name: str | None) -> Mapping[str, Any]:
        """The evaluation of the set `name`; empty where there is none."""
        return section(section(self.evaluation.get("sets")).get(name or ""))

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The evaluation of the set the figures show."""
        return self.set_metrics(self.set_name)

    @property
    def shown(self) -> list[Prediction]:
        """The usable predictions on the set the figures show."""
        name = self.set_name
        return [row for row in self.predictions if row.split == name and row.is_usable]

    @property
    def best_epoch(self) -> Mapping[str, Any] | None:
        """The epoch with the lowest validation MAE, the first of equals: the one whose checkpoint is used."""
        known = [epoch for epoch in self.epochs if number(epoch.get("val_mae_months")) is not None]
        return min(known, key=lambda epoch: float(epoch["val_mae_months"]), default=None)

    def total_s(self, key: str) -> float | None:
        """The sum of `key` over all epochs in seconds; None where no epoch has it."""
        known = [value for epoch in self.epochs if (value := number(epoch.get(key))) is not None]
        return sum(known) if known else None

    def epoch_mean(self, key: str) -> float | None:
        """The mean of `key` over the epochs that have it; None where none has."""
        known = [value for epoch in self.epochs if (value := number(epoch.get(key))) is not None]
        return statistics.fmean(known) if known else None


def load_run(
    folder: RunFolder, facts: Mapping[str, Any], computed: ComputedMetrics | None = None, with_predictions: bool = True
) -> ReportData:
    """Reads what is in `folder` so far; what its evaluation lacks is taken from `computed`.

    Without `with_predictions` those are not read, which is most of the time it takes.

    Raises:
        ContractError: a file is there and broken; a missing one is no error.
    """
    computed = computed or ComputedMetrics()
    added = computed.evaluations.get(folder.root, {})
    expected = (folder.metrics, folder.predictions, folder.evaluation, folder.environment, folder.state)
    return ReportData(
        facts=facts,
        epochs=tuple(read_metrics(folder.metrics)),
        predictions=tuple(read_predictions(folder.predictions)) if with_predictions else (),
        evaluation=fill_missing(read_object(folder.evaluation), added),
        environment=read_object(folder.environment),
        state=read_object(folder.state),
        missing=tuple(path.name for path in expected if not path.is_file()),
        is_computed=bool(section(added.get("sets"))),
        problem=computed.problem,
    )


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of a predictions file in file order; a missing file has none."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            Prediction(
                id=row.get("id") or "",
                split=row.get("split") or "",
                male=(row.get("male") or "").strip().lower() in ("true", "1"),
                boneage_months=_to_months(row.get("boneage_months")),
                predicted_months=_to_months(row.get("predicted_months")),
            )
            for row in csv.DictReader(stream)
        ]


def _to_months(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan

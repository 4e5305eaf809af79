"""The report as data: one JSON object, or one tidy table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY
from boneagectl.report import metrics
from boneagectl.report.data import ReportData
from boneagectl.report.text import number

SCHEMA = 1
CSV_COLUMNS = ("set", "group", "metric", "value", "unit")
TOTALS = ("load_s", "compute_s", "validate_s", "checkpoint_s", "epoch_s")
EPOCH_UNITS = {
    "images": "images", "loss": "1", "mae_months": "months", "val_mae_months": "months", "learning_rate": "1",
    "epoch_s": "s", "load_s": "s", "compute_s": "s", "validate_s": "s", "checkpoint_s": "s",
    "load_ms_per_image": "ms", "compute_ms_per_image": "ms", "elapsed_s": "s",
}  # fmt: skip


def to_json(data: ReportData) -> dict[str, Any]:
    """The report as one object that is valid JSON: what is unknown or not finite is None.

    The keys, stable within a schema, with units in the names:
        ``schema``, ``research_only``, ``run_id``, ``command``, ``bundle_sha256``;
        ``state`` (state, reason, epoch, epochs); ``labels`` (what the labels are), ``split``;
        ``sets`` with, for each evaluated set, its groups (all, sex:male, age:0-59,
        sex:male/age:0-59) and their metrics, shares as 0..1, the interval of the MAE as
        ``mae_ci95_low_months`` and ``mae_ci95_high_months``;
        ``worst`` for each set; ``epochs`` as the trainer wrote them; ``best_epoch`` (its number);
        ``totals`` in seconds over all epochs; ``legs``, ``cost_usd``, ``quota_hours``; ``config``;
        ``environment``; ``missing`` (files that were not there).
    """
    facts, best = data.facts, data.best_epoch
    raw: dict[str, Any] = {
        "schema": SCHEMA,
        "research_only": RESEARCH_ONLY,
        "run_id": data.run_id,
        **{key: facts.get(key) for key in ("command", "bundle_sha256", "cost_usd", "quota_hours")},
        **{key: facts.get(key) or empty for key, empty in (("legs", []), ("config", {}))},
        "state": data.state,
        "labels": data.evaluation.get("labels"),
        "split": data.evaluation.get("split"),
        "sets": {name: dict(metrics.flat_groups(data.set_metrics(name))) for name in data.set_names},
        "worst": {name: data.set_metrics(name).get("worst") or [] for name in data.set_names},
        "epochs": data.epochs,
        "best_epoch": best.get("epoch") if best else None,
        "totals": {key: data.total_s(key) for key in TOTALS},
        "environment": data.environment,
        "missing": data.missing,
    }
    return {key: to_finite(value) for key, value in raw.items()}


def to_finite(value: Any) -> Any:
    """`value` as JSON can hold it: tuples as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): to_finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_csv(data: ReportData) -> str:
    """The report as a tidy table with the columns of CSV_COLUMNS, one number per row.

    ``set`` is test, validation, training (then ``group`` is ``epoch:N``) or run (``group`` is all).
    Groups of an evaluated set are those of `to_json`. An unknown number has no row; a share is 0..1;
    values are written in full, not rounded.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for name, group, metric, value, unit in _csv_rows(data):
        if value is not None:
            writer.writerow((name, group, metric, csv_number(value), unit))
    return stream.getvalue()


def _csv_rows(data: ReportData) -> Iterator[tuple[str, str, str, float | None, str]]:
    for name in data.set_names:
        for group, values in metrics.flat_groups(data.set_metrics(name)):
            yield from ((name, group, metric, value, metrics.unit_of(metric)) for metric, value in values.items())
    for at, epoch in enumerate(data.epochs, 1):
        group = f"epoch:{epoch.get('epoch', at)}"
        yield from (("training", group, key, number(epoch.get(key)), unit) for key, unit in EPOCH_UNITS.items())
    yield from (("run", "all", key, data.total_s(key), "s") for key in TOTALS)
    for key, unit in (("cost_usd", "US$"), ("quota_hours", "h")):
        yield "run", "all", key, number(data.facts.get(key)), unit


def csv_number(value: float) -> str:
    """A count without a point, anything else in full."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)

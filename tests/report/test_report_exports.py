"""The report as data: tidy csv and stable JSON, with units and full precision."""

from __future__ import annotations

import csv
import io
import json

import pytest

from boneagectl.report.data import ReportData
from boneagectl.report.export import CSV_COLUMNS, to_csv, to_json


@pytest.fixture
def rows(data: ReportData) -> dict[tuple[str, str, str], dict[str, str]]:
    return {(row["set"], row["group"], row["metric"]): row for row in csv.DictReader(io.StringIO(to_csv(data)))}


def test_csv_has_one_row_per_number(data: ReportData, rows: dict[tuple[str, str, str], dict[str, str]]) -> None:
    text = to_csv(data)
    assert text.splitlines()[0] == ",".join(CSV_COLUMNS)
    assert len(rows) == len(text.splitlines()) - 1, "no key comes twice"
    assert all(row["unit"] and float(row["value"]) is not None for row in rows.values())


@pytest.mark.parametrize("name", ["test", "validation"])
def test_csv_keeps_full_precision(
    data: ReportData, rows: dict[tuple[str, str, str], dict[str, str]], name: str
) -> None:
    own = data.set_metrics(name)
    assert float(rows[name, "all", "mae_months"]["value"]) == own["mae_months"]
    assert float(rows[name, "all", "mae_ci95_high_months"]["value"]) == own["mae_ci95_months"][1]
    assert float(rows[name, "sex:female", "mae_months"]["value"]) == own["by_sex"]["female"]["mae_months"]
    both = own["by_sex_and_age_band"]["male"]["60-119"]
    assert float(rows[name, "sex:male/age:60-119", "n"]["value"]) == both["n"]
    assert rows[name, "all", "within_6_months"]["unit"] == "share"


def test_csv_holds_epochs_and_the_run(data: ReportData, rows: dict[tuple[str, str, str], dict[str, str]]) -> None:
    assert float(rows["training", "epoch:24", "val_mae_months"]["value"]) == data.epochs[-1]["val_mae_months"]
    assert rows["run", "all", "load_s"] == {
        "set": "run",
        "group": "all",
        "metric": "load_s",
        "value": "300",
        "unit": "s",
    }
    assert rows["run", "all", "cost_usd"]["unit"] == "US$"


def test_json_is_valid_stable_and_complete(data: ReportData) -> None:
    document = to_json(data)
    assert json.dumps(document, allow_nan=False) == json.dumps(to_json(data), allow_nan=False)
    assert sorted(document) == [
        "best_epoch", "bundle_sha256", "command", "config", "cost_usd", "environment", "epochs", "labels", "legs",
        "missing", "quota_hours", "research_only", "run_id", "schema", "sets", "split", "state", "totals", "worst",
    ]  # fmt: skip
    assert document["sets"]["test"]["all"]["mae_months"] == data.set_metrics("test")["mae_months"]
    assert document["sets"]["test"]["age:0-59"]["n"] == data.set_metrics("test")["by_age_band"]["0-59"]["n"]
    assert document["totals"]["compute_s"] == 24 * 84.0
    assert len(document["epochs"]) == 24


def test_json_has_null_for_nan_and_infinity(data: ReportData) -> None:
    odd = ReportData(
        {}, ({"epoch": 1, "loss": float("nan")},), (), {"sets": {"test": {"mae_months": float("inf")}}}, {}, {}, ()
    )
    document = to_json(odd)
    assert document["epochs"][0]["loss"] is None
    assert document["sets"]["test"]["all"] == {"mae_months": None}
    assert "nan" not in to_csv(odd)

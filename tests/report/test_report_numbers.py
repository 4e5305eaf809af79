"""The page shows what the files hold: numbers are compared with the data, drawings with their scales."""

from __future__ import annotations

import re

import pytest

from boneagectl.report.data import ReportData
from report.page import Page
from report.sample_run import COUNTS, EPOCHS, LEG_ENDS_AFTER


def shown(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def test_hero_states_error_interval_count_split_labels_and_baseline(data: ReportData, page: Page) -> None:
    metrics = data.set_metrics("test")
    low, high = metrics["mae_ci95_months"]
    assert f"{shown(metrics['mae_months'])} months\nmean absolute error on the test set" in page.text
    assert (
        f"95 % confidence interval {shown(low)} to {shown(high)}. 2\u202f523 radiographs; split: paper; " in page.text
    )
    assert "; reference ages: single reader" in page.text
    assert "Baseline (always the median training age): 33.0 months." in page.text
    assert "Complete: 24 of 24 epochs done." in page.text


@pytest.mark.parametrize(("column", "name"), [(1, "test"), (2, "validation")])
def test_accuracy_table_holds_both_sets(data: ReportData, page: Page, column: int, name: str) -> None:
    metrics = data.set_metrics(name)
    cells = {row[0]: row[column] for row in page.tables["Accuracy"]}
    assert cells["Metric"] == name.capitalize()
    assert cells["Mean absolute error (months)"] == shown(metrics["mae_months"])
    assert cells["Root mean square error (months)"] == shown(metrics["rmse_months"])
    assert float(cells["Bias, predicted − reference (months)"].replace("−", "-")) == pytest.approx(
        metrics["bias_months"], abs=0.05
    )
    for limit in (6, 12, 24):
        assert cells[f"Within {limit} months"] == f"{shown(100 * metrics[f'within_{limit}_months'])} %"


def test_run_table_holds_epochs_time_gpu_and_cost(page: Page) -> None:
    cells = dict(page.tables["Run"])
    assert cells["Epochs"] == "24"
    assert cells["Training time"] == "44.0 min"
    assert cells["GPU"] == "Tesla T4"
    assert cells["Cost"] == "US$ 0.00"
    assert cells["Quota used"] == "0.8 h"


def test_best_epoch_has_the_lowest_validation_error(data: ReportData, page: Page) -> None:
    best = min(data.epochs, key=lambda epoch: epoch["val_mae_months"])
    assert dict(page.tables["Run"])["Best epoch (checkpoint used)"] == str(best["epoch"])
    assert f"Best epoch (checkpoint used): {best['epoch']}, " in page.figures["mae"].texts["figcaption"]


def test_curve_tables_have_one_row_per_epoch(data: ReportData, page: Page) -> None:
    assert page.figures["mae"].rows[1:] == [
        (str(line["epoch"]), shown(line["mae_months"], 2), shown(line["val_mae_months"], 2)) for line in data.epochs
    ]
    assert [row[2] for row in page.figures["loss"].rows[1:]] == [shown(line["loss"], 4) for line in data.epochs]


def test_leg_boundary_is_halfway_between_two_epochs(page: Page) -> None:
    mae = page.figures["mae"]
    (boundary,) = mae.paths["leg"]
    marks = [float(x) for x in re.findall(r"M([\d.]+) ", max(mae.paths["mark b"], key=len))]
    at = float(re.match(r"M([\d.]+)", boundary)[1])  # type: ignore[index]
    assert len(marks) == EPOCHS
    assert at == pytest.approx((marks[LEG_ENDS_AFTER - 1] + marks[LEG_ENDS_AFTER]) / 2, abs=0.1)
    assert "leg 2" in mae.labels


@pytest.mark.parametrize("key", ["scatter", "bland-altman"])
def test_point_clouds_have_every_radiograph_once(data: ReportData, page: Page, key: str) -> None:
    part = page.figures[key]
    boys, girls = part.paths["dot boys"][0].count("M"), part.paths["cross girls"][0].count("M")
    assert boys == sum(row.male for row in data.shown)
    assert boys + girls == COUNTS["test"]
    assert sum(int(row[1]) + int(row[2]) for row in part.rows[1:]) == COUNTS["test"]


def test_scatter_points_are_at_their_months(data: ReportData, page: Page) -> None:
    part = page.figures["scatter"]
    (x1, y1), (x2, y2) = (map(float, pair) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", part.paths["identity"][0]))
    boy = next(row for row in data.shown if row.male)
    x, y = map(float, re.match(r"M([\d.]+) ([\d.]+)h0", part.paths["dot boys"][0]).groups())  # type: ignore[union-attr]
    low, high = -24, 240
    assert (x - x1) / (x2 - x1) == pytest.approx((boy.boneage_months - low) / (high - low), abs=0.001)
    assert (y - y1) / (y2 - y1) == pytest.approx((boy.predicted_months - low) / (high - low), abs=0.001)


def test_bland_altman_names_bias_and_limits_as_evaluated(data: ReportData, page: Page) -> None:
    metrics, part = data.set_metrics("test"), page.figures["bland-altman"]
    for key in ("loa_low_months", "bias_months", "loa_high_months"):
        words = f"{metrics[key]:+.1f}".replace("-", "−")
        assert words in part.labels
        assert words in part.texts["figcaption"]
    assert len(part.paths["level"]) == 3 + 1, "three levels and the sample in the legend"


def test_bars_by_sex_and_band_hold_the_evaluation(data: ReportData, page: Page) -> None:
    metrics = data.set_metrics("test")
    for name, key in (("Boys", "male"), ("Girls", "female")):
        assert (name, shown(metrics["by_sex"][key]["mae_months"], 2)) in [
            (row[0], row[2]) for row in page.figures["by-sex"].rows
        ]
    for band in metrics["by_age_band"]:
        assert shown(metrics["by_age_band"][band]["mae_months"]) in page.figures["by-age"].labels
    both = {row[0]: row[2] for row in page.figures["by-age"].rows}
    assert both["Girls, 0–59"] == shown(metrics["by_sex_and_age_band"]["female"]["0-59"]["mae_months"], 2)


def test_bars_of_both_error_figures_have_one_scale(data: ReportData, page: Page) -> None:
    metrics = data.set_metrics("test")
    sex = float(page.figures["by-sex"].rects[0]["height"] or 0) / metrics["by_sex"]["male"]["mae_months"]
    band = float(page.figures["by-age"].rects[0]["height"] or 0) / metrics["by_age_band"]["0-59"]["mae_months"]
    assert sex == pytest.approx(band, rel=0.01)


def test_histogram_counts_every_radiograph(data: ReportData, page: Page) -> None:
    rows = page.figures["ages"].rows[1:]
    assert sum(int(row[1]) for row in rows) == sum(row.male for row in data.shown)
    assert sum(int(row[2]) for row in rows) == sum(not row.male for row in data.shown)


def test_time_is_split_into_its_parts(page: Page) -> None:
    cells = {row[0]: row[1] for row in page.figures["time"].rows[1:]}
    assert cells == {"Load images": "300.0", "Compute": "2\u202f016.0", "Validate": "288.0",
                    "Save checkpoints": "14.4", "Start-up": "41.5"}  # fmt: skip


def test_worst_cases_are_in_order_with_signed_errors(data: ReportData, page: Page) -> None:
    first = data.set_metrics("test")["worst"][0]
    row = page.tables[""][1]
    assert row[0] == first["id"]
    assert row[4] == f"{first['error_months']:+.1f}".replace("-", "−")


def test_provenance_names_data_split_bundle_and_commit(data: ReportData, page: Page) -> None:
    cells = dict(page.tables["Provenance"])
    assert cells["Bundle sha256"] == data.facts["bundle_sha256"]
    assert cells["Split sha256"] == data.evaluation["split"]["sha256"]
    assert cells["Data fingerprint"] == data.environment["data"]["fingerprint"]
    assert cells["Git commit"] == data.environment["provenance"]["git_commit"]
    assert cells["Git dirty sha256"] == "none"

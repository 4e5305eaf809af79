"""What is computed from predictions alone is what the trainer's own evaluation says of the same predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boneage_trainer.contract import RunFolder
from boneage_trainer.evaluation import metrics
from boneage_trainer.evaluation import paired as trainer_paired
from boneagectl.report import measured, paired
from boneagectl.report.data import Prediction, read_predictions
from boneagectl.report.run_page import ReportData, load_run, render_html
from report.page import Page
from report.sample_run import COUNTS, FACTS, evaluation, predictions, write_csv

DRAWN_APART = 0.12  # months: two bootstraps of a thousand draws each


@pytest.fixture(scope="module")
def rows(complete: RunFolder) -> list[Prediction]:
    return [row for row in read_predictions(complete.predictions) if row.split == "test"]


@pytest.fixture(scope="module")
def theirs(rows: list[Prediction]) -> dict[str, Any]:
    male, actual, guess = zip(*((row.male, row.boneage_months, row.predicted_months) for row in rows), strict=True)
    return metrics.evaluate([row.id for row in rows], np.array(male), actual, guess)


def test_every_measure_is_the_trainers(rows: list[Prediction], theirs: dict[str, Any]) -> None:
    ours = measured.of(rows)
    names = ("mae_months", "rmse_months", "median_ae_months", "bias_months", "sd_error_months", "p90_ae_months", "r2",
             "slope", "intercept_months", "within_6_months", "within_12_months", "within_24_months", "loa_low_months",
             "loa_high_months")  # fmt: skip
    assert {name: ours[name] for name in names} == pytest.approx({name: theirs[name] for name in names}, abs=1e-4)
    assert ours["mae_ci95_months"] == pytest.approx(theirs["mae_ci95_months"], abs=DRAWN_APART)
    for kind in ("by_sex", "by_age_band"):
        assert {name: one["mae_months"] for name, one in ours[kind].items()} == pytest.approx(
            {name: one["mae_months"] for name, one in theirs[kind].items()}, abs=1e-4
        )
    girls = ours["by_sex_and_age_band"]["female"]["60-119"]
    assert girls["rmse_months"] == pytest.approx(
        theirs["by_sex_and_age_band"]["female"]["60-119"]["rmse_months"], abs=1e-4
    )
    assert [one["id"] for one in measured.worst(rows)] == [one["id"] for one in theirs["worst"]]


def test_calibration_is_the_trainers_but_for_ties(rows: list[Prediction], theirs: dict[str, Any]) -> None:
    ours, other = measured.calibration(rows), theirs["calibration"]
    assert sum(one["n"] for one in ours["bins"]) == len(rows) == COUNTS["test"]
    assert ours["expected_error_months"] == pytest.approx(other["expected_error_months"], abs=0.02)
    assert [one["mean_actual_months"] for one in ours["bins"]] == pytest.approx(
        [one["mean_actual_months"] for one in other["bins"]], abs=0.1
    )


def test_a_paired_interval_is_the_trainers(rows: list[Prediction]) -> None:
    actual = [row.boneage_months for row in rows]
    first = [row.predicted_months for row in rows]
    second = [value + (3 if place % 2 else -2) for place, value in enumerate(first)]
    theirs = trainer_paired.paired(actual, first, second)
    ours = [abs(a - b) - abs(c - b) for a, b, c in zip(first, actual, second, strict=True)]
    (interval,) = paired.intervals([ours])
    assert interval == pytest.approx(theirs["difference_ci95_months"], abs=DRAWN_APART)
    assert paired.intervals([ours, [-2 * one for one in ours]])[0] == interval, "more columns, the same draws"


@pytest.mark.parametrize("column", [[], [3.0], [1.0, float("nan")], [0.0, 1e16]])
def test_there_is_no_interval_of_what_cannot_be_drawn(column: list[float]) -> None:
    assert paired.intervals([column]) == [None]


def test_an_interval_of_equal_values_has_no_width() -> None:
    assert paired.intervals([[-7.5] * 40]) == [(-7.5, -7.5)]


def test_an_evaluation_is_filled_and_never_replaced(tmp_path: Path) -> None:
    rows = predictions({"test": 200})
    folder = RunFolder(tmp_path)
    write_csv(folder.predictions, rows)
    folder.evaluation.write_text(json.dumps({"sets": {"test": {"mae_months": 99.0, "r2": None}}}), encoding="utf-8")
    own = load_run(folder, FACTS).set_of("test")
    assert own["mae_months"] == 99.0
    assert 0.5 < own["r2"] < 1
    assert len(own["worst"]) == 10


def test_a_whole_evaluation_stays_as_it_is(complete: RunFolder, data: ReportData) -> None:
    told = evaluation(predictions())["sets"]["test"]
    assert {key: data.set_of("test")[key] for key in told} == told


def test_the_page_draws_calibration_and_who_was_measured(data: ReportData, page: Page) -> None:
    own = data.set_of("test")["calibration"]
    calibrated = page.figures["calibration"]
    assert len(calibrated.rows) == 1 + len(own["bins"])
    assert sum(int(row[1]) for row in calibrated.rows[1:]) == COUNTS["test"]
    assert f"Mean distance {own['expected_error_months']:.1f} months" in calibrated.texts["figcaption"]
    sexes = {row[0]: row for row in page.figures["sexes"].rows}
    assert int(sexes["test"][2].replace("\u202f", "")) == sum(row.male for row in data.shown)
    assert sexes["train"][1] == "not known", "what nobody told is not shown as 0"
    assert "Not told of: train." in page.figures["sexes"].texts["figcaption"]


def test_the_scatter_names_mae_rmse_and_r2(data: ReportData, page: Page) -> None:
    own = data.set_of("test")
    words = f"MAE {own['mae_months']:.1f} months, RMSE {own['rmse_months']:.1f} months, R² {own['r2']:.3f}."
    assert words in page.figures["scatter"].texts["figcaption"]


def test_the_trainers_further_comparisons_are_told(data: ReportData) -> None:
    own = {
        **data.set_of("test"),
        "against_median_by_sex": {"difference_months": -21.25, "difference_ci95_months": [-22, -20.5],
                                  "improved_share": 0.87},
        "regression_to_the_mean": {"youngest_fifth": {"bias_months": 4.1}, "oldest_fifth": {"bias_months": -3.2}},
    }  # fmt: skip
    changed = {**data.evaluation, "sets": {"test": own}}
    page = Page.of(render_html(ReportData(FACTS, (), data.predictions, changed, {}, {}, ())))
    assert "the error is −21.2 months against the median of the same sex (95 % interval −22.0 to −20.5), and smaller " \
           "on 87.0 % of them" in page.figures["ruler"].texts["figcaption"]  # fmt: skip
    assert "youngest fifth +4.1 months, in the oldest −3.2" in page.figures["calibration"].texts["figcaption"]


def test_radiographs_are_shown_on_request_only(data: ReportData, html: str) -> None:
    assert "No radiograph is shown" in html
    facts = {**data.facts, "samples_png": "iVBORw0KGgo="}
    page = render_html(ReportData(facts, data.epochs, data.predictions, data.evaluation, {}, {}, ()))
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in page
    assert "The terms of the data apply to this page" in page

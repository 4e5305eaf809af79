"""The metrics against hand-computed ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boneage_trainer.evaluation.metrics import (
    BOOTSTRAP_DRAWS,
    baseline_metrics,
    bootstrap_interval,
    bootstrap_intervals,
    calibration,
    paired_metrics,
    rank_correlation,
    regression_to_the_mean,
    set_metrics,
    training_medians,
)

MALE = np.array([1, 1, 0, 0], np.float32)
MONTHS = np.array([24, 100, 130, 200], np.float32)
GUESS = np.array([30, 90, 130, 230], np.float32)
AGES = np.arange(100, dtype=float)


def test_metrics_match_hand_computed_values() -> None:
    metrics = set_metrics(list("abcd"), MALE, MONTHS, GUESS)
    assert metrics["n"] == 4
    assert metrics["mae_months"] == pytest.approx((6 + 10 + 0 + 30) / 4)
    assert metrics["rmse_months"] == pytest.approx(math.sqrt((36 + 100 + 900) / 4), abs=1e-4)
    assert metrics["bias_months"] == pytest.approx(6.5)
    assert metrics["median_ae_months"] == 8
    assert (metrics["within_6_months"], metrics["within_12_months"], metrics["within_24_months"]) == (0.5, 0.75, 0.75)
    assert metrics["r2"] == pytest.approx(1 - 1036 / ((MONTHS - MONTHS.mean()) ** 2).sum(), abs=1e-4)
    assert metrics["worst"][0] == {
        "id": "d", "male": False, "boneage_months": 200.0, "predicted_months": 230.0, "error_months": 30.0,
    }  # fmt: skip


def test_groups_add_up() -> None:
    metrics = set_metrics(list("abcd"), MALE, MONTHS, GUESS)
    assert {name: group["mae_months"] for name, group in metrics["by_sex"].items()} == {"male": 8.0, "female": 15.0}
    assert [group["n"] for group in metrics["by_age_band"].values()] == [1, 1, 1, 1]
    assert sum(g["n"] for sex in metrics["by_sex_and_age_band"].values() for g in sex.values()) == 4


def test_bland_altman_is_bias_and_twice_the_spread() -> None:
    metrics = set_metrics(list("abcd"), MALE, MONTHS, GUESS)
    errors = (GUESS - MONTHS).astype(float)
    assert metrics["loa_high_months"] == pytest.approx(errors.mean() + 1.96 * errors.std(ddof=1), abs=1e-4)
    assert metrics["loa_low_months"] == pytest.approx(errors.mean() - 1.96 * errors.std(ddof=1), abs=1e-4)


def test_undefined_metrics_are_null() -> None:
    metrics = set_metrics(list("ab"), MALE[:2], np.array([60, 60]), np.array([50, 70]))
    assert metrics["r2"] is None
    assert metrics["slope"] is None
    assert metrics["regression_to_the_mean"] == {"error_slope": None, "youngest_fifth": None, "oldest_fifth": None}
    assert metrics["by_sex"]["female"] == {
        **dict.fromkeys(metrics["by_sex"]["male"]),
        "n": 0,
        "mae_ci95_months": [None, None],
    }
    nothing = np.array([])
    assert calibration(nothing, nothing) == {"bins": [], "expected_error_months": None}
    assert paired_metrics(nothing, nothing, nothing)["difference_months"] is None


def test_the_interval_covers_the_mean_about_95_times_in_100() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        errors = random.exponential(10, 60)
        low, high = set_metrics([""] * 60, np.ones(60), np.zeros(60), errors)["mae_ci95_months"]
        covered += low <= 10 <= high
    assert 85 <= covered <= 99


def test_rows_drawn_together_get_the_same_interval_as_alone() -> None:
    values = np.random.default_rng(5).normal(10, 4, (3, 500))
    random = np.random.default_rng(0)
    means = [values[1][random.integers(0, 500, 500)].mean() for _ in range(BOOTSTRAP_DRAWS)]
    assert bootstrap_intervals(values)[1] == pytest.approx(np.percentile(means, (2.5, 97.5)), abs=1e-4)
    assert bootstrap_intervals(values)[1] == bootstrap_interval(values[1])


@pytest.mark.parametrize("values", [[], [3.0], [1.0, float("nan")]])
def test_no_interval_of_too_few_or_nan_values(values: list[float]) -> None:
    assert bootstrap_interval(np.array(values)) == [None, None]


def test_predictions_half_way_to_the_mean_have_half_the_slope() -> None:
    metrics = regression_to_the_mean(AGES, 49.5 + (AGES - 49.5) / 2)
    assert metrics["error_slope"] == -0.5
    assert metrics["youngest_fifth"] == {"n": 20, "from_months": 0, "to_months": 19, "bias_months": 20.0}
    assert metrics["oldest_fifth"] == {"n": 20, "from_months": 80, "to_months": 99, "bias_months": -20.0}


def test_calibration_bins_by_predicted_age() -> None:
    metrics = calibration(AGES + np.where(AGES < 50, 4, -2), AGES)
    assert [one["n"] for one in metrics["bins"]] == [10] * 10
    assert metrics["bins"][0] == {"n": 10, "mean_predicted_months": 4.5, "mean_actual_months": 8.5}
    assert metrics["expected_error_months"] == 3


def test_a_constant_prediction_is_one_bin() -> None:
    """Binned by position, a constant answer would look badly calibrated wherever the file is sorted."""
    metrics = calibration(AGES, np.full(100, 49.5))
    assert metrics == {"bins": [{"n": 100, "mean_predicted_months": 49.5, "mean_actual_months": 49.5}],
                     "expected_error_months": 0.0}  # fmt: skip


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    """Errors that differ by 1 on every image, and vary by far more between images."""
    size = np.linspace(2, 60, 50)
    metrics = paired_metrics(np.zeros(50), size - 1, -size)
    assert metrics == {
        "n": 50, "difference_months": -1.0, "difference_ci95_months": [-1.0, -1.0], "improved_share": 1.0,
    }  # fmt: skip
    assert paired_metrics(np.zeros(50), -size, size - 1)["improved_share"] == 0


def test_equal_predictors_have_no_paired_difference() -> None:
    random = np.random.default_rng(3)
    metrics = paired_metrics(np.zeros(400), random.normal(0, 5, 400), random.normal(0, 5, 400))
    low, high = metrics["difference_ci95_months"]
    assert low < 0 < high
    assert metrics["improved_share"] == pytest.approx(0.5, abs=0.1)


def test_a_sex_without_training_images_has_no_baseline() -> None:
    known = training_medians(MONTHS[:2], MALE[:2])
    assert known == {"all": 62.0, "male": 62.0, "female": None}
    metrics = baseline_metrics(known, MALE, MONTHS, GUESS)
    assert metrics["baseline_median_mae_months"] == pytest.approx(np.abs(MONTHS - 62).mean())
    assert metrics["baseline_median_by_sex_mae_months"] is None
    assert metrics["against_median_by_sex"]["improved_share"] is None


def test_rank_correlation_with_ties() -> None:
    assert rank_correlation([1, 2, 3, 400], [10, 20, 30, 31]) == 1
    assert rank_correlation([1, 2, 2, 3], [4, 3, 2, 1]) == pytest.approx(-0.9487, abs=1e-4)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None

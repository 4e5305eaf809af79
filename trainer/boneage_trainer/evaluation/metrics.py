"""Accuracy metrics of predicted bone ages: of a set and its groups, against baselines, between two predictions.

The only place where published statistics are computed. Ages and errors are in months, an error is
predicted minus actual, shares are in 0..1. A metric that has no value (no images, constant ages) is null.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

AGE_BANDS = (("0-59", 0, 60), ("60-119", 60, 120), ("120-179", 120, 180), ("180-228", 180, 10_000))
BOOTSTRAP_DRAWS = 1000
_WORST_CASES = 10
_CALIBRATION_BINS = 10
_GROUP_METRICS = (
    "mae_months", "rmse_months", "median_ae_months", "bias_months", "sd_error_months", "p90_ae_months",
    "within_6_months", "within_12_months", "within_24_months",
)  # fmt: skip


def set_metrics(ids: list[str], male: Any, months: Any, predicted: Any) -> dict[str, Any]:
    """All metrics of one set; the arrays are (n,), `male` is 1 or 0."""
    actual, guess = np.asarray(months, float), np.asarray(predicted, float)
    is_male = np.asarray(male) == 1
    bands = {name: (actual >= low) & (actual < high) for name, low, high in AGE_BANDS}
    sexes = {"male": is_male, "female": ~is_male}
    worst_first = np.argsort(-np.abs(guess - actual), kind="stable")
    return {
        **group_metrics(actual, guess),
        **_agreement(actual, guess),
        "regression_to_the_mean": regression_to_the_mean(actual, guess),
        "calibration": calibration(actual, guess),
        "by_sex": {name: group_metrics(actual[mask], guess[mask]) for name, mask in sexes.items()},
        "by_age_band": {name: group_metrics(actual[mask], guess[mask]) for name, mask in bands.items()},
        "by_sex_and_age_band": {
            sex: {name: group_metrics(actual[mask & band], guess[mask & band]) for name, band in bands.items()}
            for sex, mask in sexes.items()
        },
        "worst": [
            {
                "id": ids[row],
                "male": bool(is_male[row]),
                "boneage_months": rounded(actual[row]),
                "predicted_months": rounded(guess[row]),
                "error_months": rounded(guess[row] - actual[row]),
            }
            for row in worst_first[:_WORST_CASES]
        ],
    }


def group_metrics(actual: Floats, guess: Floats) -> dict[str, Any]:
    """The metrics given for a set and for each of its groups."""
    errors = guess - actual
    size = np.abs(errors)
    if not len(errors):
        return {"n": 0, **dict.fromkeys(_GROUP_METRICS), "mae_ci95_months": [None, None]}
    spread = float(errors.std(ddof=1)) if len(errors) > 1 else None
    values = (
        size.mean(), np.sqrt((errors**2).mean()), np.median(size), errors.mean(), spread,
        np.percentile(size, 90), (size <= 6).mean(), (size <= 12).mean(), (size <= 24).mean(),
    )  # fmt: skip
    return {
        "n": len(errors),
        **dict(zip(_GROUP_METRICS, map(rounded, values), strict=True)),
        "mae_ci95_months": bootstrap_interval(size),
    }


def population(months: Any, male: Any) -> dict[str, Any]:
    """Size and ages of a part of the data: n, male, female, and the mean, SD, least and greatest age in months."""
    ages, boys = np.asarray(months, float), int((np.asarray(male) == 1).sum())
    values = (ages.mean(), ages.std(), ages.min(), ages.max()) if len(ages) else (None,) * 4
    names = ("mean_months", "sd_months", "min_months", "max_months")
    counts = {"n": len(ages), "male": boys, "female": len(ages) - boys}
    return {**counts, **dict(zip(names, map(rounded, values), strict=True))}


# ------------------------------------------------------------------------------------- bootstrap
def bootstrap_interval(values: Floats) -> list[float | None]:
    """The 95 % percentile bootstrap interval of the mean of `values` (n,); [None, None] below two values."""
    return bootstrap_intervals(np.asarray(values, float)[None])[0]


def bootstrap_intervals(rows: Floats) -> list[list[float | None]]:
    """`bootstrap_interval` of each row of `rows` (k, n); the rows share the draws, which depend on n alone."""
    count = rows.shape[1]
    if count < 2:
        return [[None, None] for _ in rows]
    random = np.random.default_rng(0)
    means = np.empty((BOOTSTRAP_DRAWS, len(rows)))
    # One draw at a time: all at once would hold a thousand times the set in memory.
    for draw in range(BOOTSTRAP_DRAWS):
        weights = np.bincount(random.integers(0, count, count), minlength=count)
        means[draw] = rows @ weights.astype(float) / count
    return [[rounded(low), rounded(high)] for low, high in np.percentile(means, (2.5, 97.5), axis=0).T]


# ------------------------------------------------------------------------------------- agreement
def _agreement(actual: Floats, guess: Floats) -> dict[str, Any]:
    """How predictions follow ages: R2, the regression of predicted on actual, Bland-Altman limits."""
    empty = dict.fromkeys(("r2", "slope", "intercept_months", "loa_low_months", "loa_high_months"))
    if len(actual) < 2:
        return empty
    errors = guess - actual
    reach = 1.96 * errors.std(ddof=1)
    limits = {"loa_low_months": rounded(errors.mean() - reach), "loa_high_months": rounded(errors.mean() + reach)}
    variance = ((actual - actual.mean()) ** 2).sum()
    if variance == 0:
        return {**empty, **limits}
    slope = _slope(actual, guess)
    line = {"slope": rounded(slope), "intercept_months": rounded(guess.mean() - slope * actual.mean())}
    return {"r2": rounded(1 - (errors**2).sum() / variance), **line, **limits}


def _slope(x: Floats, y: Floats) -> float:
    """Least squares, of `y` on an `x` that is not constant."""
    centred = x - x.mean()
    return float((centred * (y - y.mean())).sum() / (centred**2).sum())


def regression_to_the_mean(actual: Floats, guess: Floats) -> dict[str, Any]:
    """How far high ages are underestimated and low ages overestimated.

    Returns:
        error_slope (months of error per month of age; 0 is none, -1 is always predicting the mean), and
        youngest_fifth and oldest_fifth: n, from_months, to_months, bias_months. Ages on the border of
        a fifth belong to it. Noise in the labels alone makes the slope a little negative.
    """
    if len(actual) < 2 or np.ptp(actual) == 0:
        return {"error_slope": None, "youngest_fifth": None, "oldest_fifth": None}
    errors = guess - actual
    low, high = np.percentile(actual, (20, 80))
    return {
        "error_slope": rounded(_slope(actual, errors)),
        "youngest_fifth": _fifth(actual, errors, actual <= low),
        "oldest_fifth": _fifth(actual, errors, actual >= high),
    }


def _fifth(actual: Floats, errors: Floats, mask: Mask) -> dict[str, Any]:
    return {
        "n": int(mask.sum()),
        "from_months": rounded(actual[mask].min()),
        "to_months": rounded(actual[mask].max()),
        "bias_months": rounded(errors[mask].mean()),
    }


def calibration(actual: Floats, guess: Floats) -> dict[str, Any]:
    """Mean actual age against mean predicted age, in ten bins of about equal size.

    Returns:
        bins, by rising predicted age (n, mean_predicted_months, mean_actual_months; equal predictions
        share a bin, so there may be fewer than ten), and expected_error_months: the mean distance of the
        two over images. Few images per bin make that distance larger by chance alone.
    """
    if not len(guess) or not np.isfinite(guess).all():
        return {"bins": [], "expected_error_months": None}
    edges = np.unique(np.quantile(guess, np.arange(1, _CALIBRATION_BINS) / _CALIBRATION_BINS))
    index = np.searchsorted(edges, guess, side="right")
    bins = [(int((index == b).sum()), guess[index == b].mean(), actual[index == b].mean()) for b in np.unique(index)]
    distance = sum(n * abs(predicted - real) for n, predicted, real in bins) / len(guess)
    return {
        "bins": [
            {"n": n, "mean_predicted_months": rounded(predicted), "mean_actual_months": rounded(real)}
            for n, predicted, real in bins
        ],
        "expected_error_months": rounded(distance),
    }


# ------------------------------------------------------------------------------ paired comparisons
def paired_metrics(actual: Any, first: Any, second: Any) -> dict[str, Any]:
    """Image by image, how much closer `first` is to `actual` than `second` is; all are (n,), in months.

    Returns:
        n; difference_months, the mean of first's absolute error minus second's (negative: first is
        better), with difference_ci95_months by a bootstrap over images; improved_share, that of the
        images where first is strictly closer. All null where there are no images or no predictions.
    """
    ages, first_ages, second_ages = (np.asarray(values, float) for values in (actual, first, second))
    return summarize_differences([np.abs(first_ages - ages) - np.abs(second_ages - ages)])[0]


def summarize_differences(rows: Sequence[Floats]) -> list[dict[str, Any]]:
    """`paired_metrics` of each row of differences of absolute errors (n,); rows of one length share their draws."""
    nothing = {"difference_months": None, "difference_ci95_months": [None, None], "improved_share": None}
    summaries: list[dict[str, Any]] = [{"n": len(row), **nothing} for row in rows]
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if len(row) and np.isfinite(row).all():
            by_length[len(row)].append(index)
    for indices in by_length.values():
        same = np.stack([rows[index] for index in indices])
        for index, row, interval in zip(indices, same, bootstrap_intervals(same), strict=True):
            summaries[index] |= {"difference_months": rounded(row.mean()), "difference_ci95_months": interval,
                                 "improved_share": rounded((row < 0).mean())}  # fmt: skip
    return summaries


def training_medians(months: Any, male: Any) -> dict[str, float | None]:
    """The baselines a training set (n,) gives: the median age of all, of the boys, of the girls."""
    groups = {"all": np.ones(len(months), bool), "male": np.asarray(male) == 1, "female": np.asarray(male) != 1}
    ages = {name: np.asarray(months, float)[mask] for name, mask in groups.items()}
    return {name: rounded(np.median(group)) if len(group) else None for name, group in ages.items()}


def baseline_metrics(medians: Mapping[str, float | None], male: Any, months: Any, predicted: Any) -> dict[str, Any]:
    """The MAE of always predicting a training median of `medians`, and `predicted` against the better one."""
    ages, is_male = np.asarray(months, float), np.asarray(male) == 1
    everyone, boys, girls = (np.full(len(ages), medians.get(name), float) for name in ("all", "male", "female"))
    by_sex = np.where(is_male, boys, girls)
    return {
        "baseline_median_mae_months": _mae(ages, everyone),
        "baseline_median_by_sex_mae_months": _mae(ages, by_sex),
        "against_median_by_sex": paired_metrics(ages, predicted, by_sex),
    }


def _mae(actual: Floats, guess: Floats) -> float | None:
    return rounded(np.abs(guess - actual).mean()) if len(actual) else None


# ----------------------------------------------------------------------------------------- views
def view_metrics(actual: Any, views: Any) -> dict[str, Any]:
    """What averaging `views` (v, n), v above 1, changes against the plain view, the first.

    Returns:
        views, plain_view_mae_months, against_plain_view (see `paired_metrics`), and view_disagreement:
        mean_sd_months, and rank_correlation with the absolute error. It is a weak sign of error and
        no uncertainty: views of one image share what is hard about it.
    """
    ages, mean = np.asarray(actual, float), np.mean(views, axis=0)
    deviations = view_disagreement(views)
    return {
        "views": len(views),
        "plain_view_mae_months": _mae(ages, np.asarray(views[0], float)),
        "against_plain_view": paired_metrics(ages, mean, views[0]),
        "view_disagreement": {
            "mean_sd_months": rounded(deviations.mean()) if len(deviations) else None,
            "rank_correlation": rank_correlation(deviations, np.abs(mean - ages)),
        },
    }


def view_disagreement(views: Any) -> Floats:
    """The standard deviation over the `views` (v, n) of each image, (n,), in months."""
    return np.asarray(np.std(np.asarray(views, float), axis=0, ddof=1))


def rank_correlation(first: Any, second: Any) -> float | None:
    """Spearman's; equal values share their mean rank. None where either is constant or not finite."""
    columns = [np.asarray(values, float) for values in (first, second)]
    if len(columns[0]) < 2 or any(not np.isfinite(column).all() or np.ptp(column) == 0 for column in columns):
        return None
    ranks = []
    for column in columns:
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[inverse])
    return rounded(np.corrcoef(ranks[0], ranks[1])[0, 1])


def rounded(value: Any) -> float | None:
    """`value` to four digits after the point; None if it is not a finite number."""
    return None if value is None or not np.isfinite(value) else round(float(value), 4)

"""The figures a reader expects of a set: errors overall, by sex and age, their spread, how they follow age.

Every figure that has no value (no images, constant ages) is null. Ages and errors are in months, an
error is predicted minus actual, shares lie in 0..1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

BANDS = (("0-59", 0, 60), ("60-119", 60, 120), ("120-179", 120, 180), ("180-228", 180, 10_000))
_BOOTSTRAPS = 1000
_WORST = 10
_BINS = 10


def evaluate(ids: list[str], male: Any, months: Any, predicted: Any) -> dict[str, Any]:
    """All figures of one set; the arrays are (n,), `male` is 1 or 0."""
    actual, guess = np.asarray(months, float), np.asarray(predicted, float)
    is_male = np.asarray(male) == 1
    bands = {name: (actual >= low) & (actual < high) for name, low, high in BANDS}
    sexes = {"male": is_male, "female": ~is_male}
    return {
        **group(actual, guess),
        **_agreement(actual, guess),
        "regression_to_the_mean": regression_to_the_mean(actual, guess),
        "calibration": calibration(actual, guess),
        "by_sex": {name: group(actual[mask], guess[mask]) for name, mask in sexes.items()},
        "by_age_band": {name: group(actual[mask], guess[mask]) for name, mask in bands.items()},
        "by_sex_and_age_band": {
            sex: {name: group(actual[mask & band], guess[mask & band]) for name, band in bands.items()}
            for sex, mask in sexes.items()
        },
        "worst": _worst(ids, is_male, actual, guess),
    }


def group(actual: Floats, guess: Floats) -> dict[str, Any]:
    """The figures that are given for a set and for each of its groups."""
    errors = guess - actual
    size = np.abs(errors)
    if not len(errors):
        return {"n": 0, **dict.fromkeys(_FIGURES), "mae_ci95_months": [None, None]}
    spread = float(errors.std(ddof=1)) if len(errors) > 1 else None
    values = (
        size.mean(), np.sqrt((errors**2).mean()), np.median(size), errors.mean(), spread,
        np.percentile(size, 90), (size <= 6).mean(), (size <= 12).mean(), (size <= 24).mean(),
    )  # fmt: skip
    return {
        "n": len(errors),
        **dict(zip(_FIGURES, map(rounded, values), strict=True)),
        "mae_ci95_months": interval(size),
    }


_FIGURES = (
    "mae_months", "rmse_months", "median_ae_months", "bias_months", "sd_error_months", "p90_ae_months",
    "within_6_months", "within_12_months", "within_24_months",
)  # fmt: skip


def interval(values: Floats) -> list[float | None]:
    """The bootstrap's middle 95 % of the mean of `values` (n,); the same draws for the same n."""
    if len(values) < 2:
        return [None, None]
    random = np.random.default_rng(0)
    # One draw at a time: all at once would hold a thousand times the set in memory.
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(_BOOTSTRAPS)]
    low, high = np.percentile(means, (2.5, 97.5))
    return [rounded(low), rounded(high)]


def _agreement(actual: Floats, guess: Floats) -> dict[str, Any]:
    """How predictions follow ages: R2, the line of predicted on actual, Bland-Altman's limits."""
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
    """How far the old are read too young and the young too old.

    Returns:
        error_slope (months of error a month of age; 0 is none, -1 is always answering the mean), and
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
    """Whether images that are given an age have it on average, in ten bins of about equal size.

    Returns:
        bins, by rising predicted age (n, mean_predicted_months, mean_actual_months; equal predictions
        share a bin, so there may be fewer than ten), and expected_error_months: the mean distance of the
        two over images. Few images a bin make that distance larger by chance alone.
    """
    if not len(guess) or not np.isfinite(guess).all():
        return {"bins": [], "expected_error_months": None}
    edges = np.unique(np.quantile(guess, np.arange(1, _BINS) / _BINS))
    at = np.searchsorted(edges, guess, side="right")
    bins = [(int((at == b).sum()), guess[at == b].mean(), actual[at == b].mean()) for b in np.unique(at)]
    distance = sum(n * abs(predicted - real) for n, predicted, real in bins) / len(guess)
    return {
        "bins": [
            {"n": n, "mean_predicted_months": rounded(predicted), "mean_actual_months": rounded(real)}
            for n, predicted, real in bins
        ],
        "expected_error_months": rounded(distance),
    }


def _worst(ids: list[str], is_male: Mask, actual: Floats, guess: Floats) -> list[dict[str, Any]]:
    order = np.argsort(-np.abs(guess - actual), kind="stable")[:_WORST]
    return [
        {
            "id": ids[at],
            "male": bool(is_male[at]),
            "boneage_months": rounded(actual[at]),
            "predicted_months": rounded(guess[at]),
            "error_months": rounded(guess[at] - actual[at]),
        }
        for at in order
    ]


def rounded(value: Any) -> float | None:
    """`value` to four digits after the point; None for what is no finite number."""
    return None if value is None or not np.isfinite(value) else round(float(value), 4)

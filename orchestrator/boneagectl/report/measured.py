"""What predictions.csv alone tells of a set. It fills what an evaluation lacks and replaces nothing it says."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from boneagectl.report.paired import intervals, percentile
from boneagectl.report.text import section

if TYPE_CHECKING:
    from boneagectl.report.data import Prediction

BANDS = (("0-59", 0, 60), ("60-119", 60, 120), ("120-179", 120, 180), ("180-228", 180, 10_000))
"""The trainer's age bands, in months of labelled bone age."""
_WORST = 10
_BINS = 10
_MEASURES = ("n", "mae_months", "mae_ci95_months", "rmse_months", "bias_months", "r2", "within_6_months",
             "within_12_months", "within_24_months", "loa_low_months", "by_sex", "by_age_band")  # fmt: skip


def completed(evaluation: Mapping[str, Any], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """`evaluation` with what it lacks of its sets and parts.

    A set with a prediction that is no number stays as it is: the rest alone would flatter the network.
    """
    by_split = {name: [row for row in predictions if row.split == name] for name in ("test", "validation")}
    sets, parts = dict(section(evaluation.get("sets"))), dict(section(evaluation.get("parts")))
    for name, rows in by_split.items():
        if not rows or not all(row.is_usable for row in rows):
            continue
        parts.setdefault(name, _part(rows))
        sets[name] = _filled(section(sets.get(name)), rows)
    filled = {key: value for key, value in (("sets", sets), ("parts", parts)) if value}
    return {**evaluation, **filled}


def _filled(own: Mapping[str, Any], rows: Sequence[Prediction]) -> dict[str, Any]:
    """`own` with what it lacks; its intervals take a while, so nothing is computed that is there."""
    known = {key: value for key, value in own.items() if value is not None}
    told = {} if known.keys() >= set(_MEASURES) else of(rows)
    if "calibration" not in known:
        told["calibration"] = calibration(rows)
    if not known.get("worst"):
        told["worst"] = worst(rows)
    return {**told, **known}


def of(rows: Sequence[Prediction]) -> dict[str, Any]:
    """The measures of a set as the trainer names them, but for the baselines: those need the training set's ages."""
    sexes = {"male": [row for row in rows if row.male], "female": [row for row in rows if not row.male]}
    return {
        **group(rows),
        **_agreement(rows),
        "by_sex": {name: group(some) for name, some in sexes.items()},
        "by_age_band": _bands(rows),
        "by_sex_and_age_band": {name: _bands(some) for name, some in sexes.items()},
    }


def _bands(rows: Sequence[Prediction]) -> dict[str, Any]:
    return {name: group([row for row in rows if low <= row.boneage_months < high]) for name, low, high in BANDS}


def group(rows: Sequence[Prediction]) -> dict[str, Any]:
    """What is told of a set and of each group in it; a group of nobody has no measure."""
    if not rows:
        return {"n": 0}
    errors = [row.error_months for row in rows]
    sizes = sorted(map(abs, errors))
    (interval,) = intervals([sizes])
    return {
        "n": len(rows),
        "mae_months": statistics.fmean(sizes),
        "mae_ci95_months": list(interval) if interval else [None, None],
        "rmse_months": math.sqrt(statistics.fmean(error * error for error in errors)),
        "median_ae_months": statistics.median(sizes),
        "bias_months": statistics.fmean(errors),
        "sd_error_months": statistics.stdev(errors) if len(rows) > 1 else None,
        "p90_ae_months": percentile(sizes, 90),
        **{f"within_{limit}_months": sum(size <= limit for size in sizes) / len(rows) for limit in (6, 12, 24)},
    }


def _agreement(rows: Sequence[Prediction]) -> dict[str, Any]:
    """R2, the line of prediction on label, and the limits of agreement, as far as there are values for them."""
    if len(rows) < 2:
        return {}
    errors, labels = [row.error_months for row in rows], [row.boneage_months for row in rows]
    bias, reach = statistics.fmean(errors), 1.96 * statistics.stdev(errors)
    limits = {"loa_low_months": bias - reach, "loa_high_months": bias + reach}
    mean = statistics.fmean(labels)
    variance = sum((label - mean) ** 2 for label in labels)
    if variance == 0:
        return limits
    slope, intercept = statistics.linear_regression(labels, [row.predicted_months for row in rows])
    squares = sum(error * error for error in errors)
    return {**limits, "r2": 1 - squares / variance, "slope": slope, "intercept_months": intercept}


def calibration(rows: Sequence[Prediction]) -> dict[str, Any]:
    """Groups of about equal size by rising prediction: the mean prediction beside the mean label."""
    ordered = sorted(rows, key=lambda row: row.predicted_months)
    edges = [round(len(ordered) * place / _BINS) for place in range(_BINS + 1)]
    pieces = [ordered[low:high] for low, high in itertools.pairwise(edges) if high > low]
    bins = [
        {
            "n": len(some),
            "mean_predicted_months": statistics.fmean(row.predicted_months for row in some),
            "mean_actual_months": statistics.fmean(row.boneage_months for row in some),
        }
        for some in pieces
    ]
    distance = sum(one["n"] * abs(one["mean_predicted_months"] - one["mean_actual_months"]) for one in bins)
    return {"bins": bins, "expected_error_months": distance / len(ordered)}


def worst(rows: Sequence[Prediction]) -> list[dict[str, Any]]:
    """The largest errors, the largest first."""
    return [_case(row) for row in sorted(rows, key=lambda row: -abs(row.error_months))[:_WORST]]


def _case(row: Prediction) -> dict[str, Any]:
    values = {"boneage_months": row.boneage_months, "predicted_months": row.predicted_months}
    return {"id": row.id, "male": row.male, **values, "error_months": row.error_months}


def _part(rows: Sequence[Prediction]) -> dict[str, Any]:
    """Who a part is, as the trainer tells it."""
    ages, boys = [row.boneage_months for row in rows], sum(row.male for row in rows)
    return {
        "n": len(rows), "male": boys, "female": len(rows) - boys, "mean_months": statistics.fmean(ages),
        "sd_months": statistics.pstdev(ages), "min_months": min(ages), "max_months": max(ages),
    }  # fmt: skip

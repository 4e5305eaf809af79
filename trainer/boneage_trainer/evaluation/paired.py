"""Two predictions of the same images against each other: a baseline and a model, one view and several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from boneage_trainer.evaluation.metrics import Floats, interval, rounded


def paired(actual: Any, first: Any, second: Any) -> dict[str, Any]:
    """How much closer `first` comes to `actual` than `second` does, image by image; all are (n,), in months.

    Returns:
        n; difference_months, the mean of first's absolute error minus second's (negative: first is
        better), with difference_ci95_months by a bootstrap over images; improved_share, that of the
        images where first is strictly closer. All null where there are no images or no predictions.
    """
    ages, one, other = (np.asarray(values, float) for values in (actual, first, second))
    differences = np.abs(one - ages) - np.abs(other - ages)
    if not len(differences) or not np.isfinite(differences).all():
        nothing = {"difference_months": None, "difference_ci95_months": [None, None], "improved_share": None}
        return {"n": len(differences), **nothing}
    return {
        "n": len(differences),
        "difference_months": rounded(differences.mean()),
        "difference_ci95_months": interval(differences),
        "improved_share": rounded((differences < 0).mean()),
    }


# ------------------------------------------------------------------------------------- baselines
def medians(months: Any, male: Any) -> dict[str, float | None]:
    """The ages a guesser learns from a training set (n,): the median of all, of the boys, of the girls."""
    groups = {"all": np.ones(len(months), bool), "male": np.asarray(male) == 1, "female": np.asarray(male) != 1}
    return {name: _median(np.asarray(months, float)[mask]) for name, mask in groups.items()}


def _median(months: Floats) -> float | None:
    return rounded(np.median(months)) if len(months) else None


def baselines(known: Mapping[str, float | None], male: Any, months: Any, predicted: Any) -> dict[str, Any]:
    """The MAE of always answering a training median of `known`, and `predicted` against the better guesser."""
    ages, is_male = np.asarray(months, float), np.asarray(male) == 1
    everyone = np.full(len(ages), _number(known, "all"))
    by_sex = np.where(is_male, _number(known, "male"), _number(known, "female"))
    return {
        "baseline_median_mae_months": _mae(ages, everyone),
        "baseline_median_by_sex_mae_months": _mae(ages, by_sex),
        "against_median_by_sex": paired(ages, predicted, by_sex),
    }


def _number(known: Mapping[str, float | None], name: str) -> float:
    value = known.get(name)
    return float("nan") if value is None else value


def _mae(actual: Floats, guess: Floats) -> float | None:
    return rounded(np.abs(guess - actual).mean()) if len(actual) else None


# ----------------------------------------------------------------------------------------- views
def several_views(actual: Any, views: Any) -> dict[str, Any]:
    """What averaging `views` (v, n), v above 1, changes against the plain view, the first.

    Returns:
        views, plain_view_mae_months, against_plain_view (see `paired`), and view_disagreement:
        mean_sd_months, and rank_correlation with the absolute error. It is a weak sign of error and
        no uncertainty: views of one image share what is hard about it.
    """
    ages, mean = np.asarray(actual, float), np.mean(views, axis=0)
    apart = disagreement(views)
    return {
        "views": len(views),
        "plain_view_mae_months": _mae(ages, np.asarray(views[0], float)),
        "against_plain_view": paired(ages, mean, views[0]),
        "view_disagreement": {
            "mean_sd_months": rounded(apart.mean()) if len(apart) else None,
            "rank_correlation": rank_correlation(apart, np.abs(mean - ages)),
        },
    }


def disagreement(views: Any) -> Floats:
    """The standard deviation over the `views` (v, n) of each image, (n,), in months."""
    return np.asarray(np.std(np.asarray(views, float), axis=0, ddof=1))


def rank_correlation(first: Any, second: Any) -> float | None:
    """Spearman's, equal values sharing their mean rank; None where either is constant."""
    ranks = [pd.Series(np.asarray(values)).rank().to_numpy(float) for values in (first, second)]
    if len(ranks[0]) < 2 or any(np.ptp(one) == 0 for one in ranks):
        return None
    return rounded(np.corrcoef(*ranks)[0, 1])

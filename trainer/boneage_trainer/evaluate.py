"""The evaluation a reader expects: errors overall, by sex and age, their spread, and the baselines.

Every figure that has no value (no images, constant ages) is null. Ages and errors are in months, an
error is predicted minus actual, shares lie in 0..1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from boneage_trainer.contract import RESEARCH_ONLY, SCHEMA, RunFolder, write_atomic, write_json
from boneage_trainer.pack import Pack
from boneage_trainer.splits import Split

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LABELS = "ages of the csv the pack was made from; those of the RSNA training csv are single-rater readings"
BANDS = (("0-59", 0, 60), ("60-119", 60, 120), ("120-179", 120, 180), ("180-228", 180, 10_000))
_BOOTSTRAPS = 1000
_WORST = 10


def write(folder: RunFolder, pack: Pack, parts: Split, predicted: Mapping[str, Any]) -> None:
    """Writes ``predictions.csv`` and ``evaluation.json`` for the validation and test sets in `predicted`."""
    train_months, train_male = pack.months[parts.train], pack.male[parts.train]
    sets = {}
    predicted = {name: np.mean(np.atleast_2d(values), axis=0) for name, values in predicted.items()}
    write_atomic(folder.predictions, predictions_csv(pack, parts, predicted))
    for name, values in predicted.items():
        rows = getattr(parts, name)
        baselines = _baselines(train_months, train_male, pack.months[rows], pack.male[rows])
        figures = evaluate([pack.ids[row] for row in rows], pack.male[rows], pack.months[rows], values)
        sets[name] = {**figures, **baselines, "trained_on": False}
    write_json(folder.evaluation, {
        "schema": SCHEMA, "research_only": RESEARCH_ONLY, "labels": LABELS,
        "split": {"name": parts.name, "sha256": parts.sha256, "counts": parts.counts()}, "sets": sets,
    })  # fmt: skip


def predictions_csv(pack: Pack, parts: Split, predicted: Mapping[str, Any]) -> str:
    """One row an image, validation and test, in the pack's own order."""
    known = {
        row: (name, float(value))
        for name in predicted
        for row, value in zip(getattr(parts, name), predicted[name], strict=True)
    }
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("id", "split", "male", "boneage_months", "predicted_months"))
    for row in sorted(known):
        name, value = known[row]
        writer.writerow((pack.ids[row], name, bool(pack.male[row]), f"{pack.months[row]:g}", f"{value:.3f}"))
    return buffer.getvalue()


def evaluate(ids: list[str], male: Any, months: Any, predicted: Any) -> dict[str, Any]:
    """All figures of one set; the arrays are (n,), `male` is 1 or 0."""
    actual, guess = np.asarray(months, float), np.asarray(predicted, float)
    is_male = np.asarray(male) == 1
    bands = {name: (actual >= low) & (actual < high) for name, low, high in BANDS}
    sexes = {"male": is_male, "female": ~is_male}
    return {
        **figures(actual, guess),
        **_agreement(actual, guess),
        "by_sex": {name: figures(actual[mask], guess[mask]) for name, mask in sexes.items()},
        "by_age_band": {name: figures(actual[mask], guess[mask]) for name, mask in bands.items()},
        "by_sex_and_age_band": {
            sex: {name: figures(actual[mask & band], guess[mask & band]) for name, band in bands.items()}
            for sex, mask in sexes.items()
        },
        "worst": _worst(ids, is_male, actual, guess),
    }


def figures(actual: Floats, guess: Floats) -> dict[str, Any]:
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
        **dict(zip(_FIGURES, map(_rounded, values), strict=True)),
        "mae_ci95_months": _interval(size),
    }


_FIGURES = (
    "mae_months", "rmse_months", "median_ae_months", "bias_months", "sd_error_months", "p90_ae_months",
    "within_6_months", "within_12_months", "within_24_months",
)  # fmt: skip


def _agreement(actual: Floats, guess: Floats) -> dict[str, Any]:
    """How predictions follow ages: R2, the line of predicted on actual, Bland-Altman's limits."""
    empty = dict.fromkeys(("r2", "slope", "intercept_months", "loa_low_months", "loa_high_months"))
    if len(actual) < 2:
        return empty
    errors = guess - actual
    reach = 1.96 * errors.std(ddof=1)
    limits = {"loa_low_months": _rounded(errors.mean() - reach), "loa_high_months": _rounded(errors.mean() + reach)}
    variance = ((actual - actual.mean()) ** 2).sum()
    if variance == 0:
        return {**empty, **limits}
    slope = ((actual - actual.mean()) * (guess - guess.mean())).sum() / variance
    line = {"slope": _rounded(slope), "intercept_months": _rounded(guess.mean() - slope * actual.mean())}
    return {"r2": _rounded(1 - (errors**2).sum() / variance), **line, **limits}


def _interval(size: Floats) -> list[float | None]:
    """The bootstrap's middle 95 % of the mean absolute error."""
    if len(size) < 2:
        return [None, None]
    draws = np.random.default_rng(0).integers(0, len(size), (_BOOTSTRAPS, len(size)))
    low, high = np.percentile(size[draws].mean(axis=1), (2.5, 97.5))
    return [_rounded(low), _rounded(high)]


def _baselines(train_months: Any, train_male: Any, months: Any, male: Any) -> dict[str, float | None]:
    """The MAE of always answering the training set's median age, overall and of the same sex."""
    everyone = np.abs(months - np.median(train_months)).mean()
    medians = {
        sex: np.median(train_months[train_male == sex]) if (train_male == sex).any() else np.nan for sex in (0, 1)
    }
    by_sex = np.abs(months - np.where(male == 1, medians[1], medians[0])).mean()
    return {"baseline_median_mae_months": _rounded(everyone), "baseline_median_by_sex_mae_months": _rounded(by_sex)}


def _worst(ids: list[str], is_male: Mask, actual: Floats, guess: Floats) -> list[dict[str, Any]]:
    order = np.argsort(-np.abs(guess - actual), kind="stable")[:_WORST]
    return [
        {
            "id": ids[at],
            "male": bool(is_male[at]),
            "boneage_months": _rounded(actual[at]),
            "predicted_months": _rounded(guess[at]),
            "error_months": _rounded(guess[at] - actual[at]),
        }
        for at in order
    ]


def _rounded(value: Any) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)

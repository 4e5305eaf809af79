"""How far a predicted age may be off, by the errors that the same run made on its own test set.

For an answer, the images of the test set count that were given an age in the same band (figures.BANDS). The
interval is the answer, less their bias, and 1.96 standard deviations of their errors to both sides: Bland-Altman's
95 % limits of agreement, by what was predicted, since nothing else is known of a new image. It holds for
radiographs like those of the test set, read as those were; whatever it was not tested on may be off further.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from boneage_trainer.contract import RunFolder
from boneage_trainer.figures import BANDS

FEWEST = 20
"""With fewer images in its band, an answer is judged by the whole test set; with fewer there, not at all."""
_REACH = 1.96


@dataclass(frozen=True, slots=True)
class Limits:
    """Where the true age lies for 95 % of `images` test images that were given an age in `band`, in months."""

    low_months: float
    high_months: float
    images: int
    band: str


@dataclass(frozen=True, slots=True)
class OwnErrors:
    """The test images' predicted ages and errors (predicted minus actual), in months."""

    predicted_months: Sequence[float]
    error_months: Sequence[float]

    def around(self, months: float) -> Limits | None:
        """The limits for an answer of `months`; None where the test set is too small to tell."""
        name, low, high = next((band for band in BANDS if band[1] <= months < band[2]), BANDS[0])
        pairs = zip(self.predicted_months, self.error_months, strict=True)
        errors = [error for predicted, error in pairs if low <= predicted < high]
        if len(errors) < FEWEST:
            name, errors = "all", list(self.error_months)
        if len(errors) < FEWEST:
            return None
        bias, reach = statistics.fmean(errors), _REACH * statistics.stdev(errors)
        middle = months - bias
        return Limits(max(0.0, middle - reach), max(0.0, middle + reach), len(errors), name)


def of(run: RunFolder) -> OwnErrors:
    """What `run` was tested on, by its ``predictions.csv``; nothing where it has none."""
    if not run.predictions.exists():
        return OwnErrors([], [])
    with open(run.predictions, encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    predicted = [float(row["predicted_months"]) for row in rows]
    actual = [float(row["boneage_months"]) for row in rows]
    return OwnErrors(predicted, [one - other for one, other in zip(predicted, actual, strict=True)])

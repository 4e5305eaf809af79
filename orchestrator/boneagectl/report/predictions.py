"""The rows of a predictions file, as every part of the report reads them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Prediction:
    """One radiograph with its label and what the network said; a prediction that is no number is NaN."""

    id: str
    split: str
    male: bool
    boneage_months: float
    predicted_months: float

    @property
    def error_months(self) -> float:
        return self.predicted_months - self.boneage_months

    @property
    def is_usable(self) -> bool:
        return math.isfinite(self.error_months)


def read_predictions(path: Path) -> list[Prediction]:
    """The rows of a predictions file in file order; a missing file has none."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [_prediction(row) for row in csv.DictReader(stream)]


def _prediction(row: Mapping[str, str]) -> Prediction:
    return Prediction(
        id=row.get("id") or "",
        split=row.get("split") or "",
        male=(row.get("male") or "").strip().lower() in ("true", "1"),
        boneage_months=to_months(row.get("boneage_months")),
        predicted_months=to_months(row.get("predicted_months")),
    )


def to_months(text: str | None) -> float:
    """An age as written; NaN where it is no number."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan

"""The student paper's own times, to stand beside a comparison: what it told, when that was read, and no more."""

from __future__ import annotations

from dataclasses import dataclass

READ = "2026-11"
NOTE = (
    "The paper's rows are the student paper's own times, as read in November 2026; they were not measured here and "
    "cannot be compared in detail: another network input, another loader, one whole run each. It never measured a "
    "mean absolute error, so none stands here, and most of its time went into decoding full-size PNG files (32.5 ms an "
    "image on Colab). On Azure it used 75 of 100 dollars in all, at $1.17 an hour; for the single run no cost is told."
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One environment of the paper; `remark` says how exact the time is."""

    environment: str
    gpu: str | None
    total_s: int
    epochs: int
    remark: str = ""


TIMINGS = (
    Timing("Azure", "Tesla K80", 16_800, 15),
    Timing("Kaggle", None, 16_800, 15, "about the same as Azure"),
    Timing("local", "GTX 1650", 12_600, 15),
    Timing("Colab", None, 5_940, 15, "its notebook says 1 h 24 min"),
)

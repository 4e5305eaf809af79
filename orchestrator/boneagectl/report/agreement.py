"""The figures that set predictions against labels: the scatter and the Bland-Altman plot."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence

from boneagectl.report import charts
from boneagectl.report.data import ReportData
from boneagectl.report.predictions import Prediction
from boneagectl.report.svg import Figure
from boneagectl.report.words import count, months, number, plain, signed

BIN_MONTHS = 24
NO_PREDICTION = "There are no predictions yet; the trainer writes them when the run is complete."
_COLUMNS = ("Boys", "Girls", "Mean label (months)", "Mean prediction (months)", "Mean difference (months)",
            "SD of difference (months)")  # fmt: skip


def figures(data: ReportData) -> list[Figure]:
    return [_scatter(data), _bland_altman(data)]


def subject(data: ReportData) -> str:
    """What the figures show: how many radiographs of which set."""
    return f"{count(len(data.shown))} radiographs of the {data.set_name} set"


def _by_sex(points: Sequence[tuple[Prediction, charts.Point]]) -> tuple[list[charts.Point], list[charts.Point]]:
    boys = [point for row, point in points if row.male]
    return boys, [point for row, point in points if not row.male]


def _scatter(data: ReportData) -> Figure:
    if not data.shown:
        return Figure.absent("scatter", NO_PREDICTION)
    boys, girls = _by_sex([(row, (row.boneage_months, row.predicted_months)) for row in data.shown])
    line = _regression(data)
    desc = f"Scatter of {len(boys)} boys and {len(girls)} girls around the line of equality. {line}"
    svg = charts.scatter("scatter", "Predicted against labelled bone age", desc, boys, girls)
    caption = (
        f"Predicted against labelled bone age of {subject(data)}. Points on the dashed line are exact; above it the "
        f"network reads too old. {_measures(data)} {line}"
    ).rstrip()
    rows = _binned(data.shown, [row.boneage_months for row in data.shown])
    return Figure("scatter", svg, caption, ("Label (months)", *_COLUMNS), rows)


def _measures(data: ReportData) -> str:
    """MAE, RMSE and R2 as far as the evaluation has them."""
    own = data.set_of(data.set_name)
    mae, rmse, r2 = (number(own.get(key)) for key in ("mae_months", "rmse_months", "r2"))
    known = [("MAE", None if mae is None else months(mae)), ("RMSE", None if rmse is None else months(rmse)),
             ("R²", None if r2 is None else plain(r2, 3))]  # fmt: skip
    return ", ".join(f"{name} {shown}" for name, shown in known if shown) + "." if any(s for _, s in known) else ""


def _regression(data: ReportData) -> str:
    """The fitted line in words, where the evaluation has one."""
    own = data.set_of(data.set_name)
    slope, start = number(own.get("slope")), number(own.get("intercept_months"))
    if slope is None or start is None:
        return ""
    return f"The fitted line has slope {plain(slope, 3)} and intercept {plain(start)} months."


def _binned(rows: Sequence[Prediction], values: Sequence[float]) -> tuple[tuple[str, ...], ...]:
    """A summary of `rows` for each BIN_MONTHS of their `values`, in place of a line for each point."""
    bins: dict[int, list[Prediction]] = defaultdict(list)
    for row, value in zip(rows, values, strict=True):
        bins[math.floor(value / BIN_MONTHS)].append(row)
    return tuple(
        (f"{index * BIN_MONTHS} to under {(index + 1) * BIN_MONTHS}".replace("-", "−"), *_summary(bins[index]))
        for index in sorted(bins)
    )


def _summary(rows: Sequence[Prediction]) -> tuple[str, ...]:
    errors = [row.error_months for row in rows]
    boys = sum(row.male for row in rows)
    return (
        count(boys),
        count(len(rows) - boys),
        plain(statistics.fmean(row.boneage_months for row in rows)),
        plain(statistics.fmean(row.predicted_months for row in rows)),
        signed(statistics.fmean(errors)),
        plain(statistics.stdev(errors)) if len(errors) > 1 else "one only",
    )


def _bland_altman(data: ReportData) -> Figure:
    if not data.shown:
        return Figure.absent("bland-altman", NO_PREDICTION)
    means = [(row, (row.boneage_months + row.predicted_months) / 2) for row in data.shown]
    boys, girls = _by_sex([(row, (mean, row.error_months)) for row, mean in means])
    levels = _levels(data)
    told = ", ".join(f"{name} {signed(value)} months" for value, name in levels) or "limits not evaluated yet"
    svg = charts.bland_altman("bland-altman", "Difference against mean of label and prediction",
                              f"Scatter of {len(data.shown)} differences; {told}.", boys, girls,
                              [(value, signed(value)) for value, _ in levels])  # fmt: skip
    caption = (
        f"Bland-Altman plot of {subject(data)}: the difference between prediction and label against their mean; "
        f"{told}. 95 % of differences are expected between the limits of agreement."
    )
    rows = _binned(data.shown, [mean for _, mean in means])
    return Figure("bland-altman", svg, caption, ("Mean (months)", *_COLUMNS), rows)


def _levels(data: ReportData) -> list[tuple[float, str]]:
    """The limits of agreement and the bias as the evaluation has them, each with its name."""
    own = data.set_of(data.set_name)
    named = (("loa_high_months", "upper limit"), ("bias_months", "bias"), ("loa_low_months", "lower limit"))
    known = [(number(own.get(key)), name) for key, name in named]
    return [(value, name) for value, name in known if value is not None]

"""Whether radiographs that are given an age have it on average, and how far the network pulls to the mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boneagectl.report import charts
from boneagectl.report.data import ReportData
from boneagectl.report.svg import Figure
from boneagectl.report.words import count, months, number, plain, section, signed

NO_CALIBRATION = "There is no calibration yet; the trainer evaluates when the run is complete."
_COLUMNS = ("Group", "Radiographs", "Mean prediction (months)", "Mean label (months)", "Prediction − label (months)")


def figure(data: ReportData) -> Figure:
    own = section(data.set_of(data.set_name).get("calibration"))
    bins = [one for one in map(section, own.get("bins") or []) if _is_whole(one)]
    if not bins:
        return Figure.absent("calibration", NO_CALIBRATION)
    points = [(float(one["mean_predicted_months"]), float(one["mean_actual_months"])) for one in bins]
    error = months(own.get("expected_error_months"))
    desc = f"{len(bins)} groups around the line of equality; on average {error} apart."
    svg = charts.calibration("calibration", "Mean label against mean prediction", desc, points)
    caption = (
        f"Calibration on {count(sum(one['n'] for one in bins))} radiographs of the {data.set_name} set, in "
        f"{len(bins)} groups by rising prediction: a point on the dashed line means that radiographs given an age "
        f"have it on average. Mean distance {error}; few radiographs a group make it larger by chance. {_pull(data)}"
    ).rstrip()
    rows = tuple(_row(place, one, point) for place, (one, point) in enumerate(zip(bins, points, strict=True), 1))
    return Figure("calibration", svg, caption, _COLUMNS, rows)


def _is_whole(one: Mapping[str, Any]) -> bool:
    return all(number(one.get(key)) is not None for key in ("n", "mean_predicted_months", "mean_actual_months"))


def _row(place: int, one: Mapping[str, Any], point: charts.Point) -> tuple[str, ...]:
    predicted, label = point
    return count(place), count(one["n"]), plain(predicted), plain(label), signed(predicted - label)


def _pull(data: ReportData) -> str:
    """Regression to the mean in words, where the evaluation has it."""
    own = section(data.set_of(data.set_name).get("regression_to_the_mean"))
    young, old = (section(own.get(f"{name}_fifth")).get("bias_months") for name in ("youngest", "oldest"))
    if number(young) is None or number(old) is None:
        return ""
    return f"Bias in the youngest fifth {months_signed(young)}, in the oldest {months_signed(old)}."


def months_signed(value: Any) -> str:
    return f"{signed(value)} months"

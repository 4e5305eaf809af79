"""The figures that compare groups: with the baselines, by sex, by age band, and who is in the set."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from boneagectl.report import bars, charts
from boneagectl.report.agreement import NO_PREDICTION, subject
from boneagectl.report.data import ReportData
from boneagectl.report.measures import CI95
from boneagectl.report.svg import Figure
from boneagectl.report.words import count, interval, months, number, numbers, plain, section, share, signed

NO_EVALUATION = "The evaluation is not there yet; the trainer writes it when the run is complete."
NAMES = {"male": "Boys", "female": "Girls"}
BIN_MONTHS = 12
_COLUMNS = ("Group", "Radiographs", "MAE (months)", "95 % interval (months)", "Bias (months)", "RMSE (months)")
_BASELINES = (
    ("mae_months", "This network"),
    ("baseline_median_by_sex_mae_months", "Median age of each sex, for everyone"),
    ("baseline_median_mae_months", "One median age, for everyone"),
)


def figures(data: ReportData) -> list[Figure]:
    return [_ruler(data), _by_sex(data), _by_band(data), _ages(data)]


def _ruler(data: ReportData) -> Figure:
    own = data.set_of(data.set_name)
    if number(own.get("mae_months")) is None:
        return Figure.absent("ruler", NO_EVALUATION)
    found = [(name, value) for key, name in _BASELINES if (value := number(own.get(key))) is not None]
    interval_of_mae = numbers(own.get(CI95), 2)
    drawn = [bars.Bar(name, "", value, months(value)) for name, value in found]
    drawn[0] = replace(drawn[0], interval=interval_of_mae, is_lead=True)
    svg = bars.lying("ruler", "Mean absolute error against guessing",
                     "; ".join(f"{bar.name} {bar.words}" for bar in drawn) + ".", drawn,
                     max(bar.top for bar in drawn))  # fmt: skip
    caption = (
        f"Mean absolute error on {count(own.get('n'))} radiographs of the {data.set_name} set, beside what guessing "
        f"the training median would give; shorter is better. The whisker is the 95 % interval.{_against(data)}"
    )
    return Figure(
        "ruler", svg, caption, ("Reader", "MAE (months)"), tuple((bar.name, plain(bar.value, 2)) for bar in drawn)
    )


def _against(data: ReportData) -> str:
    """The paired comparison with the better guesser in words, where the evaluation has it."""
    own = section(data.set_of(data.set_name).get("against_median_by_sex"))
    if number(own.get("difference_months")) is None:
        return ""
    return (
        f" Radiograph by radiograph, the error is {signed(own['difference_months'])} months against the median of "
        f"the same sex (95 % interval {interval(own.get('difference_ci95_months'))}), and smaller on "
        f"{share(own.get('improved_share'))} of them."
    )


def _bars(groups: Mapping[str, Any]) -> list[bars.Bar]:
    """A bar for each group that has an error, with its interval and count."""
    return [
        bars.Bar(NAMES.get(name, name.replace("-", "–")), f"n = {count(group.get('n'))}", value, plain(value),
                 numbers(group.get(CI95), 2))
        for name, group in ((name, section(group)) for name, group in groups.items())
        if (value := number(group.get("mae_months"))) is not None
    ]  # fmt: skip


def _rows(groups: Mapping[str, Any], prefix: str = "") -> list[tuple[str, ...]]:
    return [
        (
            prefix + NAMES.get(name, name.replace("-", "–")),
            count(group.get("n")),
            plain(group.get("mae_months"), 2),
            interval(group.get(CI95), 2),
            signed(group.get("bias_months"), 2),
            plain(group.get("rmse_months"), 2),
        )
        for name, group in ((name, section(group)) for name, group in groups.items())
    ]


def _grouped(
    data: ReportData, key: str, title: str, by: str, groups: Mapping[str, Any], rows: list[tuple[str, ...]]
) -> Figure:
    """Bars of the error in `groups`, with `rows` as the table."""
    drawn = _bars(groups)
    if not drawn:
        return Figure.absent(key, NO_EVALUATION)
    desc = "; ".join(f"{bar.name} {bar.words} months, {bar.note}" for bar in drawn) + "."
    svg = bars.upright(key, title, desc, "Mean absolute error (months)", drawn, _highest(data))
    caption = f"Mean absolute error {by} on the {data.set_name} set. Whiskers are 95 % intervals, n counts radiographs."
    return Figure(key, svg, caption, _COLUMNS, tuple(rows))


def _highest(data: ReportData) -> float:
    """The top of the highest bar by sex or age: both figures have one scale, so that they can be compared."""
    own = data.set_of(data.set_name)
    return max(bar.top for key in ("by_sex", "by_age_band") for bar in _bars(section(own.get(key))))


def _by_sex(data: ReportData) -> Figure:
    groups = section(data.set_of(data.set_name).get("by_sex"))
    return _grouped(data, "by-sex", "Mean absolute error by sex", "by sex", groups, _rows(groups))


def _by_band(data: ReportData) -> Figure:
    own = data.set_of(data.set_name)
    groups = section(own.get("by_age_band"))
    both = section(own.get("by_sex_and_age_band"))
    rows = _rows(groups)
    for sex in both:
        rows += _rows(section(both[sex]), f"{NAMES.get(sex, sex)}, ")
    return _grouped(
        data, "by-age", "Mean absolute error by age", "by age band in months of labelled bone age", groups, rows
    )


def _ages(data: ReportData) -> Figure:
    if not data.shown:
        return Figure.absent("ages", NO_PREDICTION)
    edges = _edges([row.boneage_months for row in data.shown])
    boys, girls = (_counts(data, edges, male) for male in (True, False))
    desc = f"Counts of {sum(boys)} boys and {sum(girls)} girls in steps of {BIN_MONTHS} months."
    svg = charts.histogram("ages", "Labelled bone ages by sex", desc, edges, boys, girls)
    caption = (
        f"Labelled bone ages of {subject(data)}, counted in steps of {BIN_MONTHS} months. Where there are few "
        "radiographs, the errors by age are least certain."
    )
    rows = tuple(
        (f"{count(edge)} to under {count(edge + BIN_MONTHS)}", count(boys[place]), count(girls[place]))
        for place, edge in enumerate(edges[:-1])
    )
    return Figure("ages", svg, caption, ("Label (months)", "Boys", "Girls"), rows)


def _edges(ages: list[float]) -> list[float]:
    first, last = math.floor(min(ages) / BIN_MONTHS), math.floor(max(ages) / BIN_MONTHS) + 1
    return [float(index * BIN_MONTHS) for index in range(first, last + 1)]


def _counts(data: ReportData, edges: list[float], male: bool) -> list[int]:
    counts = [0] * (len(edges) - 1)
    for row in data.shown:
        if row.male == male:
            counts[int((row.boneage_months - edges[0]) // BIN_MONTHS)] += 1
    return counts

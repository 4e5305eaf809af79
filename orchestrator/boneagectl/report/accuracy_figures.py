"""The figures that compare groups: with the baselines, by sex, by age band, and who is in the set."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from boneagectl.report import charts
from boneagectl.report.data import Prediction, ReportData
from boneagectl.report.metrics import CI95
from boneagectl.report.svg import Figure
from boneagectl.report.text import count, interval, months, number, numbers, plain, section, share, signed

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
    drawn = [charts.Bar(name, "", value, months(value)) for name, value in found]
    drawn[0] = replace(drawn[0], interval=interval_of_mae, is_lead=True)
    svg = charts.lying("ruler", "Mean absolute error against guessing",
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


def _bars(groups: Mapping[str, Any]) -> list[charts.Bar]:
    """A bar for each group that has an error, with its interval and count."""
    return [
        charts.Bar(NAMES.get(name, name.replace("-", "–")), f"n = {count(group.get('n'))}", value, plain(value),
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
    svg = charts.upright(key, title, desc, "Mean absolute error (months)", drawn, _highest(data))
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


# == agreement: The figures that set predictions against labels: the scatter and the Bland-Altman plot.

AGREEMENT_BIN_MONTHS = 24
NO_PREDICTION = "There are no predictions yet; the trainer writes them when the run is complete."
_AGREEMENT_COLUMNS = ("Boys", "Girls", "Mean label (months)", "Mean prediction (months)", "Mean difference (months)",
            "SD of difference (months)")  # fmt: skip


def agreement_figures(data: ReportData) -> list[Figure]:
    return [_scatter(data), _bland_altman(data)]


def subject(data: ReportData) -> str:
    """What the figures show: how many radiographs of which set."""
    return f"{count(len(data.shown))} radiographs of the {data.set_name} set"


def _agreement_by_sex(
    points: Sequence[tuple[Prediction, charts.Point]],
) -> tuple[list[charts.Point], list[charts.Point]]:
    boys = [point for row, point in points if row.male]
    return boys, [point for row, point in points if not row.male]


def _scatter(data: ReportData) -> Figure:
    if not data.shown:
        return Figure.absent("scatter", NO_PREDICTION)
    boys, girls = _agreement_by_sex([(row, (row.boneage_months, row.predicted_months)) for row in data.shown])
    line = _regression(data)
    desc = f"Scatter of {len(boys)} boys and {len(girls)} girls around the line of equality. {line}"
    svg = charts.scatter("scatter", "Predicted against labelled bone age", desc, boys, girls)
    caption = (
        f"Predicted against labelled bone age of {subject(data)}. Points on the dashed line are exact; above it the "
        f"network reads too old. {_measures(data)} {line}"
    ).rstrip()
    rows = _binned(data.shown, [row.boneage_months for row in data.shown])
    return Figure("scatter", svg, caption, ("Label (months)", *_AGREEMENT_COLUMNS), rows)


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
        bins[math.floor(value / AGREEMENT_BIN_MONTHS)].append(row)
    return tuple(
        (
            f"{index * AGREEMENT_BIN_MONTHS} to under {(index + 1) * AGREEMENT_BIN_MONTHS}".replace("-", "−"),
            *_summary(bins[index]),
        )
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
    boys, girls = _agreement_by_sex([(row, (mean, row.error_months)) for row, mean in means])
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
    return Figure("bland-altman", svg, caption, ("Mean (months)", *_AGREEMENT_COLUMNS), rows)


def _levels(data: ReportData) -> list[tuple[float, str]]:
    """The limits of agreement and the bias as the evaluation has them, each with its name."""
    own = data.set_of(data.set_name)
    named = (("loa_high_months", "upper limit"), ("bias_months", "bias"), ("loa_low_months", "lower limit"))
    known = [(number(own.get(key)), name) for key, name in named]
    return [(value, name) for value, name in known if value is not None]


# == calibration: Whether radiographs that are given an age have it on average, and how far the network pulls to the

NO_CALIBRATION = "There is no calibration yet; the trainer evaluates when the run is complete."
_CALIBRATION_COLUMNS = (
    "Group",
    "Radiographs",
    "Mean prediction (months)",
    "Mean label (months)",
    "Prediction − label (months)",
)


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
    return Figure("calibration", svg, caption, _CALIBRATION_COLUMNS, rows)


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


# == people: Who was measured: boys and girls in each part of the data.

PARTS = ("train", "validation", "test")
_PEOPLE_COLUMNS = ("Part", "Radiographs", "Boys", "Girls", "Mean age (months)", "SD (months)", "Youngest (months)",
            "Oldest (months)")  # fmt: skip
_NOBODY = "It is not told yet who is in each part of the data; the trainer writes it when the run is complete."


def people_figure(data: ReportData) -> Figure:
    parts = {name: section(section(data.evaluation.get("parts")).get(name)) for name in PARTS}
    known = {name: part for name, part in parts.items() if number(part.get("n")) is not None}
    drawn = [
        charts.Bar(sex, name, float(part[key]), count(part[key]))
        for name, part in known.items()
        for sex, key in (("Boys", "male"), ("Girls", "female"))
        if number(part.get(key)) is not None
    ]
    if not drawn:
        return Figure.absent("sexes", _NOBODY)
    desc = "; ".join(f"{bar.note} {bar.name.lower()} {bar.words}" for bar in drawn) + "."
    svg = charts.upright("sexes", "Boys and girls by part", desc, "Radiographs", drawn, max(bar.value for bar in drawn))
    told = ", ".join(f"{count(part.get('n'))} to {_VERBS[name]}" for name, part in known.items())
    absent = [name for name in PARTS if name not in known]
    lacking = f" Not told of: {', '.join(absent)}." if absent else ""
    caption = f"Boys and girls in each part of the data: {told} radiographs. No radiograph is in two.{lacking}"
    return Figure(
        "sexes", svg, caption, _PEOPLE_COLUMNS, tuple(_people_row(name, part) for name, part in parts.items())
    )


_VERBS = {"train": "train on", "validation": "choose the kept epoch", "test": "test"}


def _people_row(name: str, part: object) -> tuple[str, ...]:
    own = section(part)
    ages = (plain(own.get(key)) for key in ("mean_months", "sd_months", "min_months", "max_months"))
    return (name, *(count(own.get(key)) for key in ("n", "male", "female")), *ages)

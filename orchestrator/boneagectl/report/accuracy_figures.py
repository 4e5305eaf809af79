"""The figures of a run's accuracy: who is in the data, agreement, errors by group, calibration."""

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
from boneagectl.report.svg import ReportFigure
from boneagectl.report.text import count, interval, months, number, numbers, plain, section, share, signed

_NO_EVALUATION = "Not evaluated yet; the trainer evaluates at the end of a run."
_NO_PREDICTION = "No predictions yet; the trainer writes them at the end of a run."
_SEX_NAMES = {"male": "Boys", "female": "Girls"}
_PARTS = {"train": "to train on", "validation": "to select the checkpoint", "test": "to test"}
"""Parts of the data, and what they are for."""
_HISTOGRAM_BIN_MONTHS = 12
_TABLE_BIN_MONTHS = 24
_GROUP_COLUMNS = ("Group", "Radiographs", "MAE (months)", "95 % CI (months)", "Bias (months)", "RMSE (months)")
_BIN_COLUMNS = (
    "Boys", "Girls", "Mean reference age (months)", "Mean predicted age (months)", "Mean difference (months)",
    "SD of difference (months)",
)  # fmt: skip
_CALIBRATION_COLUMNS = (
    "Bin", "Radiographs", "Mean predicted age (months)", "Mean reference age (months)",
    "Predicted − reference (months)",
)  # fmt: skip
_PART_COLUMNS = (
    "Part", "Radiographs", "Boys", "Girls", "Mean age (months)", "SD (months)", "Youngest (months)", "Oldest (months)",
)  # fmt: skip
_PART_AGES = ("mean_months", "sd_months", "min_months", "max_months")
_BASELINES = (
    ("mae_months", "This model"),
    ("baseline_median_by_sex_mae_months", "Baseline: median training age by sex"),
    ("baseline_median_mae_months", "Baseline: median training age"),
)


def _set_description(data: ReportData) -> str:
    return f"{count(len(data.shown))} radiographs of the {data.set_name} set"


# ---------------------------------------------------------------------------------- agreement
def draw_scatter(data: ReportData) -> ReportFigure:
    """Predicted against reference age of each radiograph."""
    if not data.shown:
        return ReportFigure.absent("scatter", _NO_PREDICTION)
    boys, girls = _by_sex([(row, (row.boneage_months, row.predicted_months)) for row in data.shown])
    metrics = data.metrics
    mae, rmse, r2, slope, intercept = (
        number(metrics.get(key)) for key in ("mae_months", "rmse_months", "r2", "slope", "intercept_months")
    )
    errors = [f"{name} {months(value)}" for name, value in (("MAE", mae), ("RMSE", rmse)) if value is not None]
    errors += [f"R² {plain(r2, 3)}"] if r2 is not None else []
    errors_text = f"{', '.join(errors)}." if errors else ""
    line = ""
    if slope is not None and intercept is not None:
        line = f"Linear fit: slope {plain(slope, 3)}, intercept {plain(intercept)} months."
    desc = f"Scatter of {len(boys)} boys and {len(girls)} girls around the line of identity. {line}"
    drawing = charts.plot_scatter("scatter", "Predicted vs. reference bone age", desc, boys, girls)
    caption = (
        f"Predicted vs. reference bone age of {_set_description(data)}; points above the line are overestimates. "
        f"{errors_text} {line}"
    ).rstrip()
    rows = _binned(data.shown, [row.boneage_months for row in data.shown])
    return ReportFigure("scatter", drawing, caption, ("Reference age (months)", *_BIN_COLUMNS), rows)


def _by_sex(points: Sequence[tuple[Prediction, charts.Point]]) -> tuple[list[charts.Point], list[charts.Point]]:
    boys = [point for row, point in points if row.male]
    return boys, [point for row, point in points if not row.male]


def _binned(rows: Sequence[Prediction], values: Sequence[float]) -> tuple[tuple[str, ...], ...]:
    """A summary of `rows` for each bin of their `values`, instead of a line for each point."""
    bins: dict[int, list[Prediction]] = defaultdict(list)
    for row, value in zip(rows, values, strict=True):
        bins[math.floor(value / _TABLE_BIN_MONTHS)].append(row)
    table = []
    for index, members in sorted(bins.items()):
        errors, boys = [row.error_months for row in members], sum(row.male for row in members)
        low, high = index * _TABLE_BIN_MONTHS, (index + 1) * _TABLE_BIN_MONTHS
        reference = plain(statistics.fmean(row.boneage_months for row in members))
        predicted = plain(statistics.fmean(row.predicted_months for row in members))
        sd = plain(statistics.stdev(errors) if len(errors) > 1 else None)
        table.append((f"{low} to <{high}".replace("-", "−"), count(boys), count(len(members) - boys), reference,
                      predicted, signed(statistics.fmean(errors)), sd))  # fmt: skip
    return tuple(table)


def draw_bland_altman(data: ReportData) -> ReportFigure:
    """The difference of both ages against their mean, with bias and limits of agreement."""
    if not data.shown:
        return ReportFigure.absent("bland-altman", _NO_PREDICTION)
    means = [(row, (row.boneage_months + row.predicted_months) / 2) for row in data.shown]
    boys, girls = _by_sex([(row, (mean, row.error_months)) for row, mean in means])
    named = (("loa_high_months", "upper limit"), ("bias_months", "bias"), ("loa_low_months", "lower limit"))
    levels = [(value, name) for key, name in named if (value := number(data.metrics.get(key))) is not None]
    levels_text = ", ".join(f"{name} {signed(value)} months" for value, name in levels) or "limits not computed"
    drawing = charts.plot_bland_altman(
        "bland-altman", "Bland-Altman plot of predicted and reference bone age",
        f"Scatter of {len(data.shown)} differences; {levels_text}.", boys, girls,
        [(value, signed(value)) for value, _ in levels],
    )  # fmt: skip
    caption = (
        f"Bland-Altman plot of {_set_description(data)}: predicted minus reference age against their mean; "
        f"{levels_text}. About 95 % of differences lie between the limits of agreement."
    )
    rows = _binned(data.shown, [mean for _, mean in means])
    return ReportFigure("bland-altman", drawing, caption, ("Mean of both ages (months)", *_BIN_COLUMNS), rows)


# ------------------------------------------------------------------------------------- groups
def draw_baselines(data: ReportData) -> ReportFigure:
    """The mean absolute error beside those of the median baselines."""
    metrics = data.metrics
    if number(metrics.get("mae_months")) is None:
        return ReportFigure.absent("ruler", _NO_EVALUATION)
    bars = [
        charts.Bar(name, "", value, months(value))
        for key, name in _BASELINES
        if (value := number(metrics.get(key))) is not None
    ]
    bars[0] = replace(bars[0], interval=numbers(metrics.get(CI95), 2), is_lead=True)
    drawing = charts.plot_bars("ruler", "Mean absolute error against baselines", bars)
    caption = (
        f"Mean absolute error on {count(metrics.get('n'))} radiographs of the {data.set_name} set, compared with "
        "always predicting the median training age; lower is better. The whisker is the 95 % confidence interval."
    )
    paired = section(metrics.get("against_median_by_sex"))
    if number(paired.get("difference_months")) is not None:
        caption += (
            f" Paired difference of absolute errors to the median by sex: {signed(paired['difference_months'])} months "
            f"(95 % CI {interval(paired.get('difference_ci95_months'))}); the model is closer on "
            f"{share(paired.get('improved_share'))} of the radiographs."
        )
    rows = tuple((bar.name, plain(bar.value, 2)) for bar in bars)
    return ReportFigure("ruler", drawing, caption, ("Predictor", "MAE (months)"), rows)


def _group_name(name: str) -> str:
    return _SEX_NAMES.get(name, name.replace("-", "–"))


def _group_bars(groups: Mapping[str, Any]) -> list[charts.Bar]:
    """A bar for each group that has an error, with its interval and count."""
    return [
        charts.Bar(_group_name(name), f"n = {count(group.get('n'))}", value, plain(value), numbers(group.get(CI95), 2))
        for name, group in ((name, section(group)) for name, group in groups.items())
        if (value := number(group.get("mae_months"))) is not None
    ]


def _group_rows(groups: Mapping[str, Any], prefix: str = "") -> list[tuple[str, ...]]:
    return [
        (prefix + _group_name(name), count(group.get("n")), plain(group.get("mae_months"), 2),
         interval(group.get(CI95), 2), signed(group.get("bias_months"), 2), plain(group.get("rmse_months"), 2))
        for name, group in ((name, section(group)) for name, group in groups.items())
    ]  # fmt: skip


def _draw_groups(data: ReportData, key: str, by: str, groups: Mapping[str, Any], rows: Sequence[Any]) -> ReportFigure:
    """Bars of the error in `groups`, with `rows` as the table."""
    bars = _group_bars(groups)
    if not bars:
        return ReportFigure.absent(key, _NO_EVALUATION)
    desc = "; ".join(f"{bar.name} {bar.text} months, {bar.note}" for bar in bars) + "."
    # Errors by sex and by age have one scale, so that they can be compared.
    high = max(bar.top for other in ("by_sex", "by_age_band") for bar in _group_bars(section(data.metrics.get(other))))
    title = f"Mean absolute error {by}"
    drawing = charts.plot_columns(key, title, desc, "Mean absolute error (months)", bars, high)
    caption = f"{title} on the {data.set_name} set. Whiskers are 95 % confidence intervals, n counts radiographs."
    return ReportFigure(key, drawing, caption, _GROUP_COLUMNS, tuple(rows))


def draw_by_sex(data: ReportData) -> ReportFigure:
    """The mean absolute error of boys and girls."""
    groups = section(data.metrics.get("by_sex"))
    return _draw_groups(data, "by-sex", "by sex", groups, _group_rows(groups))


def draw_by_age_band(data: ReportData) -> ReportFigure:
    """The mean absolute error by age band; the table also has age bands by sex."""
    groups = section(data.metrics.get("by_age_band"))
    rows = _group_rows(groups)
    for sex, bands in section(data.metrics.get("by_sex_and_age_band")).items():
        rows += _group_rows(section(bands), f"{_SEX_NAMES.get(sex, sex)}, ")
    return _draw_groups(data, "by-age", "by reference age in months", groups, rows)


# --------------------------------------------------------------------------------- population
def draw_age_histogram(data: ReportData) -> ReportFigure:
    """The reference ages of the shown set by sex."""
    if not data.shown:
        return ReportFigure.absent("ages", _NO_PREDICTION)
    width, ages = _HISTOGRAM_BIN_MONTHS, [row.boneage_months for row in data.shown]
    first, last = math.floor(min(ages) / width), math.floor(max(ages) / width) + 1
    edges = [float(index * width) for index in range(first, last + 1)]
    boys, girls = [0] * (last - first), [0] * (last - first)
    for row in data.shown:
        (boys if row.male else girls)[int((row.boneage_months - edges[0]) // width)] += 1
    desc = f"Counts of {sum(boys)} boys and {sum(girls)} girls in bins of {width} months."
    drawing = charts.plot_histogram("ages", "Reference bone ages by sex", desc, edges, boys, girls)
    caption = (
        f"Reference bone ages of {_set_description(data)}, in bins of {width} months. Errors by age are least certain "
        "where there are few radiographs."
    )
    rows = tuple(
        (f"{count(edge)} to <{count(edge + width)}", count(boys[index]), count(girls[index]))
        for index, edge in enumerate(edges[:-1])
    )
    return ReportFigure("ages", drawing, caption, ("Reference age (months)", "Boys", "Girls"), rows)


def draw_parts(data: ReportData) -> ReportFigure:
    """Boys and girls in the training, validation and test parts of the data."""
    parts = {name: section(section(data.evaluation.get("parts")).get(name)) for name in _PARTS}
    known = {name: part for name, part in parts.items() if number(part.get("n")) is not None}
    bars = [
        charts.Bar(sex, name, float(part[key]), count(part[key]))
        for name, part in known.items()
        for key, sex in _SEX_NAMES.items()
        if number(part.get(key)) is not None
    ]
    if not bars:
        return ReportFigure.absent(
            "sexes", "The size of each part of the data is unknown; the trainer writes it at the end of a run."
        )
    desc = "; ".join(f"{bar.note} {bar.name.lower()} {bar.text}" for bar in bars) + "."
    title = "Boys and girls in each part of the data"
    drawing = charts.plot_columns("sexes", title, desc, "Radiographs", bars, max(bar.value for bar in bars))
    uses = ", ".join(f"{count(part.get('n'))} {_PARTS[name]}" for name, part in known.items())
    unknown = [name for name in _PARTS if name not in known]
    lacking = f" Unknown: {', '.join(unknown)}." if unknown else ""
    caption = f"{title}: {uses}. No radiograph is in two parts.{lacking}"
    rows = tuple(
        (name, *(count(part.get(key)) for key in ("n", *_SEX_NAMES)), *(plain(part.get(key)) for key in _PART_AGES))
        for name, part in parts.items()
    )
    return ReportFigure("sexes", drawing, caption, _PART_COLUMNS, rows)


# -------------------------------------------------------------------------------- calibration
def draw_calibration(data: ReportData) -> ReportFigure:
    """Mean reference age against mean predicted age in bins."""
    metrics, fifths = (section(data.metrics.get(key)) for key in ("calibration", "regression_to_the_mean"))
    keys = ("n", "mean_predicted_months", "mean_actual_months")
    bins = [
        values for raw in map(section, metrics.get("bins") or []) if (values := numbers([raw.get(k) for k in keys], 3))
    ]
    if not bins:
        return ReportFigure.absent("calibration", "No calibration yet; the trainer evaluates at the end of a run.")
    points = [(predicted, actual) for _, predicted, actual in bins]
    error = months(metrics.get("expected_error_months"))
    desc = f"{len(bins)} bins around the line of identity; mean distance {error}."
    drawing = charts.plot_calibration("calibration", "Mean reference age against mean predicted age", desc, points)
    caption = (
        f"Calibration on {count(sum(size for size, _, _ in bins))} radiographs of the {data.set_name} set in "
        f"{len(bins)} bins by predicted age. On the dashed line the mean reference age of a bin equals its mean "
        f"predicted age. Mean distance {error}; small bins increase it by chance."
    )
    young, old = (section(fifths.get(f"{name}_fifth")).get("bias_months") for name in ("youngest", "oldest"))
    if number(young) is not None and number(old) is not None:
        caption += f" Bias in the youngest fifth {signed(young)} months, in the oldest fifth {signed(old)} months."
    rows = tuple(
        (count(index), count(size), plain(predicted), plain(actual), signed(predicted - actual))
        for index, (size, predicted, actual) in enumerate(bins, 1)
    )
    return ReportFigure("calibration", drawing, caption, _CALIBRATION_COLUMNS, rows)

"""The figures about the training itself: its curves and where its time went."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from boneagectl.report import charts
from boneagectl.report.data import ReportData
from boneagectl.report.svg import Figure
from boneagectl.report.text import count, duration, listed, months, number, plain, section, share

NO_EPOCH = "No epoch is finished yet, so there are no curves to draw."
TIME_PARTS = (
    ("load_s", "Loading images"),
    ("compute_s", "Computing"),
    ("validate_s", "Validating"),
    ("checkpoint_s", "Checkpoints"),
)
STARTUP = ("startup_s", "Start-up")
"""The part of the time that the environment tells, not the epochs."""

_FAR_OFF = 8
"""A value this many times the median would flatten the rest of its curve to the base line."""


def figures(data: ReportData) -> list[Figure]:
    return [_loss(data), _mae(data), _time(data)]


def _values(data: ReportData, key: str) -> tuple[float | None, ...]:
    return tuple(number(epoch.get(key)) for epoch in data.epochs)


def epoch_numbers(data: ReportData) -> list[float]:
    """The number of each epoch; where a line has none, its place counts."""
    told = _values(data, "epoch")
    return [float(place) if own is None else own for place, own in enumerate(told, 1)]


def leg_ends(data: ReportData) -> dict[float, str]:
    """Where another leg takes over: halfway between two epochs, with the name of the leg that begins."""
    epochs, ends, leg = epoch_numbers(data), {}, 1
    for place in range(1, len(epochs)):
        if data.epochs[place].get("leg") != data.epochs[place - 1].get("leg"):
            leg += 1
            ends[(epochs[place - 1] + epochs[place]) / 2] = f"leg {leg}"
    return ends


def _leg_words(data: ReportData) -> str:
    legs = len(leg_ends(data)) + 1 if data.epochs else 0
    return "in one leg" if legs == 1 else f"in {legs} legs; dashed upright lines mark where the next leg went on"


def _loss(data: ReportData) -> Figure:
    series = charts.Series("training", "a", _values(data, "loss"))
    if series.first is None:
        return Figure.absent("loss", NO_EPOCH if not data.epochs else "The epochs so far carry no loss.")
    desc = f"Line over {len(data.epochs)} epochs, from {plain(series.first, 3)} to {plain(series.last, 3)}."
    lines = [
        line for line in (series, charts.Series("validation", "b", _values(data, "val_loss"))) if line.first is not None
    ]
    svg = charts.curves("loss", "Loss by epoch", desc, "Loss (no unit)", epoch_numbers(data), lines,
                        leg_ends(data))  # fmt: skip
    caption = (
        f"Loss of {_epochs(data)} {_leg_words(data)}. Measured on the training images while the weights change, "
        "and on the validation images after each epoch."
    )
    rows = tuple(
        (
            count(epoch),
            listed(line.get("leg")),
            plain(line.get("loss"), 4),
            plain(line.get("val_loss"), 4),
            f"{rate:.2e}" if rate is not None else "",
        )
        for epoch, line in zip(epoch_numbers(data), data.epochs, strict=True)
        for rate in [number(line.get("learning_rate"))]
    )
    return Figure("loss", svg, caption, ("Epoch", "Leg", "Training loss", "Validation loss", "Learning rate"), rows)


def _epochs(data: ReportData) -> str:
    return "1 epoch" if len(data.epochs) == 1 else f"{len(data.epochs)} epochs"


def _mae(data: ReportData) -> Figure:
    training = charts.Series("training", "a", _values(data, "mae_months"))
    validation = charts.Series("validation", "b", _values(data, "val_mae_months"))
    series = [one for one in (training, validation) if one.first is not None]
    if not series:
        return Figure.absent("mae", NO_EPOCH if not data.epochs else "The epochs so far carry no error in months.")
    high = _highest_drawn(series)
    drawn = [_cut(one, high) for one in series]
    desc = " ".join(f"{one.name.capitalize()} from {plain(one.first)} to {plain(one.last)} months." for one in series)
    svg = charts.curves("mae", "Mean absolute error by epoch", desc, "Mean absolute error (months)",
                        epoch_numbers(data), drawn, leg_ends(data), _best_point(data))  # fmt: skip
    columns = ("Epoch", "Training (months)", "Validation (months)")
    return Figure("mae", svg, _mae_caption(data) + _cut_words(series, high), columns, _mae_rows(data))


def _highest_drawn(series: Sequence[charts.Series]) -> float:
    """The highest error worth its place in the figure; a network that starts far off is above it for a while."""
    known = [value for one in series for value in one.values if value is not None]
    return _FAR_OFF * statistics.median(known)


def _cut(one: charts.Series, high: float) -> charts.Series:
    """`one` without its values above `high`."""
    return replace(one, values=tuple(None if value is None or value > high else value for value in one.values))


def _cut_words(series: Sequence[charts.Series], high: float) -> str:
    far = sum(value is not None and value > high for one in series for value in one.values)
    return f" Not drawn, but in the table: {far} above {months(high, 0)}." if far else ""


def _best_point(data: ReportData) -> tuple[float, float] | None:
    best = data.best_epoch
    return None if best is None else (epoch_numbers(data)[data.epochs.index(best)], float(best["val_mae_months"]))


def _mae_caption(data: ReportData) -> str:
    best = _best_point(data)
    kept = f" The weights of epoch {count(best[0])} were kept: {plain(best[1], 2)} months." if best else ""
    return f"Mean absolute error on the training images and on the validation set after each of {_epochs(data)}.{kept}"


def _mae_rows(data: ReportData) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (count(epoch), plain(line.get("mae_months"), 2), plain(line.get("val_mae_months"), 2))
        for epoch, line in zip(epoch_numbers(data), data.epochs, strict=True)
    )


def time_spent(data: ReportData) -> list[tuple[str, float]]:
    """Each part of the training and its seconds over all epochs; parts that nobody timed are left out."""
    parts = [(name, data.total_s(key)) for key, name in TIME_PARTS]
    key, startup = STARTUP
    parts.append((startup, number(section(data.environment.get("times")).get(key))))
    return [(name, seconds) for name, seconds in parts if seconds is not None]


def _time(data: ReportData) -> Figure:
    spent = time_spent(data)
    total = sum(seconds for _, seconds in spent)
    if total <= 0:
        return Figure.absent("time", "No epoch has told its times yet.")
    drawn = [
        charts.Bar(name, "", seconds, f"{duration(seconds)} · {share(seconds / total)}") for name, seconds in spent
    ]
    desc = "; ".join(f"{bar.name} {bar.words}" for bar in drawn) + "."
    svg = charts.lying("time", "Where the time went", desc, drawn, max(seconds for _, seconds in spent))
    caption = (
        f"Wall time of {_epochs(data)} by what the machine was waiting for, {duration(total)} in all. Loading and "
        "computing are timed apart, so that a slow disk is not taken for a slow GPU."
    )
    rows = tuple((name, plain(seconds, 1), share(seconds / total)) for name, seconds in spent)
    return Figure("time", svg, caption, ("Part", "Seconds", "Share"), rows)

"""The figures of the training itself: learning curves, and where the time went."""

from __future__ import annotations

import statistics
from dataclasses import replace

from boneagectl.report import charts
from boneagectl.report.data import ReportData
from boneagectl.report.svg import ReportFigure
from boneagectl.report.text import UNKNOWN, count, duration, inline, months, number, plain, section, share

_NO_EPOCH = "No epoch has finished yet."
_TIME_PARTS = (("load_s", "Load images"), ("compute_s", "Compute"), ("validate_s", "Validate"),
               ("checkpoint_s", "Save checkpoints"))  # fmt: skip
_OUTLIER = 8
"""A value this many times the median would flatten the rest of its curve to the base line."""


def _values(data: ReportData, key: str) -> tuple[float | None, ...]:
    return tuple(number(epoch.get(key)) for epoch in data.epochs)


def _epoch_numbers(data: ReportData) -> list[float]:
    """The number of each epoch; where a line has none, its position counts."""
    return [float(index) if epoch is None else epoch for index, epoch in enumerate(_values(data, "epoch"), 1)]


def _leg_starts(data: ReportData) -> dict[float, str]:
    """Where another leg takes over: halfway between two epochs, with the name of the leg that starts."""
    epochs, starts = _epoch_numbers(data), dict[float, str]()
    for index in range(1, len(epochs)):
        if data.epochs[index].get("leg") != data.epochs[index - 1].get("leg"):
            starts[(epochs[index - 1] + epochs[index]) / 2] = f"leg {len(starts) + 2}"
    return starts


def _epochs_text(data: ReportData) -> str:
    return "1 epoch" if len(data.epochs) == 1 else f"{len(data.epochs)} epochs"


def draw_loss(data: ReportData) -> ReportFigure:
    """Training and validation loss by epoch."""
    training = charts.Series("training", "a", _values(data, "loss"))
    if training.first is None:
        return ReportFigure.absent("loss", "No epoch has a loss yet." if data.epochs else _NO_EPOCH)
    validation = charts.Series("validation", "b", _values(data, "val_loss"))
    desc = f"Line over {_epochs_text(data)}, from {plain(training.first, 3)} to {plain(training.last, 3)}."
    drawing = charts.plot_curves(
        "loss", "Loss by epoch", desc, "Loss (no unit)", _epoch_numbers(data),
        [training] if validation.first is None else [training, validation], _leg_starts(data),
    )  # fmt: skip
    legs = len(_leg_starts(data)) + 1
    legs_text = "in one leg" if legs == 1 else f"in {legs} legs (dashed vertical lines)"
    caption = (
        f"Loss over {_epochs_text(data)} {legs_text}. Training loss is measured while the weights change, validation "
        "loss after each epoch."
    )
    rows = []
    for epoch, line in zip(_epoch_numbers(data), data.epochs, strict=True):
        losses, rate = [plain(line.get(key), 4) for key in ("loss", "val_loss")], number(line.get("learning_rate"))
        rows.append((count(epoch), inline(line.get("leg")), *losses, UNKNOWN if rate is None else f"{rate:.2e}"))
    columns = ("Epoch", "Leg", "Training loss", "Validation loss", "Learning rate")
    return ReportFigure("loss", drawing, caption, columns, tuple(rows))


def draw_mae(data: ReportData) -> ReportFigure:
    """Mean absolute error by epoch, without outliers that would flatten the rest, and the best epoch."""
    training = charts.Series("training", "a", _values(data, "mae_months"))
    validation = charts.Series("validation", "b", _values(data, "val_mae_months"))
    series = [curve for curve in (training, validation) if curve.first is not None]
    if not series:
        return ReportFigure.absent("mae", "No epoch has an error in months yet." if data.epochs else _NO_EPOCH)
    known = [value for curve in series for value in curve.values if value is not None]
    high = _OUTLIER * statistics.median(known)
    outliers = sum(value > high for value in known)
    drawn = [
        replace(curve, values=tuple(None if value is None or value > high else value for value in curve.values))
        for curve in series
    ]
    desc = " ".join(
        f"{curve.name.capitalize()} from {plain(curve.first)} to {plain(curve.last)} months." for curve in series
    )
    best = data.best_epoch
    point = (_epoch_numbers(data)[data.epochs.index(best)], float(best["val_mae_months"])) if best else None
    drawing = charts.plot_curves(
        "mae", "Mean absolute error by epoch", desc, "Mean absolute error (months)", _epoch_numbers(data),
        drawn, _leg_starts(data), point,
    )  # fmt: skip
    caption = (
        f"Mean absolute error on the training images and on the validation set after each of {_epochs_text(data)}."
        + (f" Best epoch (checkpoint used): {count(point[0])}, {plain(point[1], 2)} months." if point else "")
        + (f" Values above {months(high, 0)} are in the table only: {outliers}." if outliers else "")
    )
    rows = tuple(
        (count(epoch), plain(line.get("mae_months"), 2), plain(line.get("val_mae_months"), 2))
        for epoch, line in zip(_epoch_numbers(data), data.epochs, strict=True)
    )
    return ReportFigure("mae", drawing, caption, ("Epoch", "Training (months)", "Validation (months)"), rows)


def draw_time(data: ReportData) -> ReportFigure:
    """Wall time of the epochs by activity."""
    parts = [(name, data.total_s(key)) for key, name in _TIME_PARTS]
    # The environment has this part, not the epochs.
    parts.append(("Start-up", number(section(data.environment.get("times")).get("startup_s"))))
    spent = [(name, seconds) for name, seconds in parts if seconds is not None]
    total = sum(seconds for _, seconds in spent)
    if total <= 0:
        return ReportFigure.absent("time", "No epoch has been timed yet.")
    bars = [charts.Bar(name, "", seconds, f"{duration(seconds)} · {share(seconds / total)}") for name, seconds in spent]
    drawing = charts.plot_bars("time", "Time by activity", bars)
    caption = (
        f"Wall time of {_epochs_text(data)} by activity, {duration(total)} in total. Loading and computing are timed "
        "separately, so that a slow disk is not mistaken for a slow GPU."
    )
    rows = tuple((name, plain(seconds, 1), share(seconds / total)) for name, seconds in spent)
    return ReportFigure("time", drawing, caption, ("Activity", "Seconds", "Share"), rows)

"""Charts: curves, scatter, Bland-Altman, calibration, histogram, bars and sparklines.

Each function takes plain numbers and returns one drawing. Series differ in dash and marker as well
as in colour, so that a figure reads the same in gray.
"""

from __future__ import annotations

import html
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from boneagectl.report import svg
from boneagectl.report.svg import RIGHT, Axis, Plot, age_axis, axis, epoch_axis, legend

Point = tuple[float, float]
Curve = Sequence[float | None]
_MAX_MARKERS = 40
_LABEL_GAP = 38
_LEVEL_MARGIN = 12
_SAMPLES = {"boys": svg.dots([(0, 0)], "dot boys sample"), "girls": svg.crosses([(0, 0)], "cross girls sample", 3)}
_LINE_SAMPLE = (-11, 0, 11, 0)
_HEADROOM = 1.08
_WHISKER_CAP = 6
_ROW_HEIGHT = 46
_MAX_BAR_WIDTH = 54
_LEGEND_ROW, _LEGEND_COLUMNS = 18, 4
_SPARK_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARK_ASCII = "_.-~=+*#"
_SPARK_OUTLIER = 4
"""Times the median: the first epochs of a run can be so far off that they flatten the rest."""
_SPARK_WIDTH, _SPARK_HEIGHT, _SPARK_EDGE = 120.0, 28.0, 3.0


# ------------------------------------------------------------------------------------ curves
@dataclass(frozen=True, slots=True)
class Series:
    """A curve over epochs; `style` (a or b) sets its dash, marker and colour. None breaks the line."""

    name: str
    style: str
    values: tuple[float | None, ...]

    @property
    def first(self) -> float | None:
        return next((value for value in self.values if value is not None), None)

    @property
    def last(self) -> float | None:
        return next((value for value in reversed(self.values) if value is not None), None)


def plot_curves(
    key: str, title: str, desc: str, label: str, epochs: Sequence[float], series: Sequence[Series],
    legs: Mapping[float, str], best: Point | None = None,
) -> str:  # fmt: skip
    """Curves over `epochs`; `legs` names the leg that starts at each epoch number, `best` is a ringed point."""
    known = [value for curve in series for value in curve.values if value is not None]
    plot = Plot(epoch_axis(epochs), axis(label, known, zero=True), inset=8)
    parts, entries = [plot.frame(), *(plot.vertical(epoch, "leg") for epoch in legs)], []
    # The legs are named only if every name fits before the next line.
    if all(after - before >= _LABEL_GAP for before, after in itertools.pairwise([*map(plot.at_x, legs), RIGHT])):
        parts += [plot.top_note(name, epoch) for epoch, name in legs.items()]
    for curve in series:
        places = [None if y is None else plot.at(x, y) for x, y in zip(epochs, curve.values, strict=True)]
        marked = [place for place in places if place] if len(places) <= _MAX_MARKERS else []
        parts += [svg.polyline(places, f"curve {curve.style}"), svg.dots(marked, f"mark {curve.style}")]
        sample = svg.line(*_LINE_SAMPLE, f"curve {curve.style}") + svg.dots([(0, 0)], f"mark {curve.style}")
        entries.append((curve.name, sample))
    if best:
        parts.append(svg.tag("circle", cx=plot.at_x(best[0]), cy=plot.at_y(best[1]), r=6.5, class_="best"))
        entries.append(("best epoch", svg.tag("circle", cx=0, cy=0, r=6, class_="best")))
    return svg.drawing(key, title, desc, plot.height, [*parts, legend(entries)])


# ------------------------------------------------------------------------ predicted vs. reference
def plot_scatter(key: str, title: str, desc: str, boys: Sequence[Point], girls: Sequence[Point]) -> str:
    """Reference against predicted age in months, with the line of identity."""
    ages = age_axis("Reference bone age (months)", [value for point in (*boys, *girls) for value in point])
    plot = Plot(ages, replace(ages, label="Predicted bone age (months)"), height=400)
    entries = [*_sex_entries(boys, girls), ("identity", svg.line(*_LINE_SAMPLE, "identity"))]
    parts = [plot.frame(), _point_cloud(plot, boys, girls), _identity(plot, ages), legend(entries)]
    return svg.drawing(key, title, desc, plot.height, parts)


def _point_cloud(plot: Plot, boys: Sequence[Point], girls: Sequence[Point]) -> str:
    marks = svg.dots([plot.at(*point) for point in boys], "dot boys")
    return marks + svg.crosses([plot.at(*point) for point in girls], "cross girls")


def _sex_entries(boys: Sequence[object], girls: Sequence[object]) -> list[tuple[str, str]]:
    return [(f"{name} ({len(rows)})", _SAMPLES[name]) for name, rows in (("boys", boys), ("girls", girls))]


def _identity(plot: Plot, ages: Axis) -> str:
    return svg.polyline([plot.at(ages.low, ages.low), plot.at(ages.high, ages.high)], "identity")


def plot_bland_altman(
    key: str, title: str, desc: str, boys: Sequence[Point], girls: Sequence[Point], levels: Sequence[tuple[float, str]]
) -> str:
    """Mean of both ages against their difference; `levels` are bias and limits, each (months, label)."""
    differences = [difference for _, difference in (*boys, *girls)] + [value for value, _ in levels]
    means = age_axis("Mean of reference and predicted (months)", [mean for mean, _ in (*boys, *girls)])
    differences_axis = axis("Predicted − reference (months)", differences, count=6, zero=True)
    longest = max((len(label) for _, label in levels), default=0)
    # The labels of the levels are to the right of the plot.
    right = min(RIGHT, svg.WIDTH - _LEVEL_MARGIN - 1.1 * svg.CHARACTER * longest)
    plot = Plot(means, differences_axis, height=400, right=right)
    parts = [plot.frame(), _point_cloud(plot, boys, girls), plot.horizontal(0, "axis")]
    entries = _sex_entries(boys, girls)
    entries += [("bias, 95 % limits", svg.line(*_LINE_SAMPLE, "level"))] if levels else []
    for value, label in levels:
        parts.append(plot.horizontal(value, "level"))
        parts.append(svg.text(label, plot.right + 5, plot.at_y(value) + 4.3, "value"))
    return svg.drawing(key, title, desc, plot.height, [*parts, legend(entries)])


def plot_calibration(key: str, title: str, desc: str, points: Sequence[Point]) -> str:
    """Mean predicted against mean reference age of each bin, joined in order, with the line of identity."""
    ages = age_axis("Mean predicted age (months)", [value for point in points for value in point])
    plot = Plot(ages, replace(ages, label="Mean reference age (months)"), height=400)
    places = [plot.at(*point) for point in points]
    entries = [("10 % of the radiographs", svg.dots([(0, 0)], "mark b")),
               ("identity", svg.line(*_LINE_SAMPLE, "identity"))]  # fmt: skip
    curve = svg.polyline(places, "curve b") + svg.dots(places, "mark b")
    return svg.drawing(key, title, desc, plot.height, [plot.frame(), _identity(plot, ages), curve, legend(entries)])


def plot_histogram(
    key: str, title: str, desc: str, edges: Sequence[float], boys: Sequence[int], girls: Sequence[int]
) -> str:
    """Counts by sex between `edges` (one more than counts), as a filled and a dashed outline."""
    ages = age_axis("Reference bone age (months)", edges)
    plot = Plot(ages, axis("Radiographs", [*boys, *girls], zero=True), height=400)
    parts, entries = [plot.y_side()], []
    for name, counts in (("boys", boys), ("girls", girls)):
        corners = [(edges[0], 0.0)]
        for low, high, number in zip(edges, edges[1:], counts, strict=False):
            corners += [(low, float(number)), (high, float(number))]
        outline = [plot.at(x, y) for x, y in [*corners, (edges[-1], 0.0)]]
        parts.append(svg.polyline(outline, f"outline {name}"))
        entries.append((f"{name} ({sum(counts)})", svg.rect(-11, -5, 22, 10, f"outline {name}")))
    return svg.drawing(key, title, desc, plot.height, [*parts, plot.x_side(), legend(entries)])


# -------------------------------------------------------------------------------------- bars
@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, a second line under it, its value, the value as text, and its 95 % interval; the lead
    bar is the one the figure is about.
    """

    name: str
    note: str
    value: float
    text: str
    interval: tuple[float, ...] | None = None
    is_lead: bool = False

    @property
    def top(self) -> float:
        """The highest value the drawing must hold."""
        return max((self.value, *(self.interval or ())))


@dataclass(frozen=True, slots=True)
class StackedBar:
    """One bar made of parts: its name, the total as text, and a value for each part."""

    name: str
    text: str
    parts: tuple[float, ...]


def plot_columns(key: str, title: str, desc: str, label: str, bars: Sequence[Bar], high: float) -> str:
    """Vertical bars with whiskers on a scale of 0..`high`; each value is above its own whisker."""
    plot = Plot(Axis.from_ticks("", (0, 1)), axis(label, [_HEADROOM * high], zero=True), height=270, top=32)
    step = (RIGHT - plot.left) / len(bars)
    width, parts = min(_MAX_BAR_WIDTH, 0.6 * step), [plot.y_side()]
    for index, bar in enumerate(bars):
        x, y = plot.left + step * (index + 0.5), plot.at_y(bar.value)
        parts.append(svg.rect(x - width / 2, y, width, plot.bottom - y, "bar"))
        if bar.interval:
            low, high_end = map(plot.at_y, bar.interval)
            parts.append(svg.line(x, low, x, high_end, "whisker"))
            parts += [svg.line(x - _WHISKER_CAP, y, x + _WHISKER_CAP, y, "whisker") for y in (low, high_end)]
        parts.append(svg.text(bar.text, x, plot.at_y(bar.top) - 7, "value", "middle"))
        parts.append(svg.text(bar.name, x, plot.bottom + 18, "tick", "middle"))
        parts.append(svg.text(bar.note, x, plot.bottom + 35, "note", "middle"))
    return svg.drawing(key, title, desc, plot.height, [*parts, plot.base()])


def plot_bars(key: str, title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from 0 to the highest value, with name and value on a line above each."""
    high = max(bar.top for bar in bars)
    scale, parts = svg.WIDTH / high if high > 0 else 0, []
    for index, bar in enumerate(bars):
        y = index * _ROW_HEIGHT
        parts += [_bar_heading(bar, y), svg.rect(0, y + 20, svg.WIDTH, 10, "track")]
        parts.append(svg.rect(0, y + 20, bar.value * scale, 10, "bar lead" if bar.is_lead else "bar"))
        if bar.interval:
            ends = [end * scale for end in bar.interval]
            parts.append(svg.line(ends[0], y + 25, ends[1], y + 25, "whisker"))
            parts += [svg.line(x, y + 18, x, y + 32, "whisker") for x in ends]
    desc = "; ".join(f"{bar.name} {bar.text}" for bar in bars) + "."
    return svg.drawing(key, title, desc, _ROW_HEIGHT * len(bars), parts)


def _bar_heading(bar: Bar | StackedBar, y: float) -> str:
    return svg.text(bar.name, 0, y + 13, "label") + svg.text(bar.text, svg.WIDTH, y + 13, "value", "end")


def plot_stacked_bars(key: str, title: str, names: Sequence[str], bars: Sequence[StackedBar]) -> str:
    """Horizontal bars on one scale, each split into the parts `names`; the legend above has four per line."""
    top = _LEGEND_ROW * -(-len(names) // _LEGEND_COLUMNS) + 8
    scale, parts = svg.WIDTH / max(sum(bar.parts) for bar in bars), []
    for index, name in enumerate(names):
        row, column = divmod(index, _LEGEND_COLUMNS)
        x, y = column * svg.WIDTH / _LEGEND_COLUMNS, row * _LEGEND_ROW
        parts += [svg.rect(x + 1, y + 3, 14, 10, f"part p{index}"), svg.text(name, x + 20, y + 12)]
    for row, bar in enumerate(bars):
        x, y = 0.0, top + row * _ROW_HEIGHT
        parts.append(_bar_heading(bar, y))
        for index, value in enumerate(bar.parts):
            if value > 0:
                parts.append(svg.rect(x, y + 20, value * scale, 12, f"part p{index}"))
            x += value * scale
    desc = "; ".join(f"{bar.name} {bar.text}" for bar in bars) + "."
    return svg.drawing(key, title, desc, top + _ROW_HEIGHT * len(bars), parts)


# --------------------------------------------------------------------------------- sparklines
def sparkline_text(values: Curve, width: int, is_plain: bool) -> str:
    """`values` in at most `width` characters, a gap for an unknown one; `is_plain` keeps to ASCII."""
    shown = _clip_outliers(_thin(values, width))
    known = [value for value in shown if value is not None]
    if not known:
        return ""
    marks, low, span = _SPARK_ASCII if is_plain else _SPARK_BLOCKS, min(known), max(known) - min(known)
    steps = len(marks) - 1
    return "".join(
        " " if value is None else marks[round((value - low) / span * steps) if span else 0] for value in shown
    )


def _thin(values: Curve, width: int) -> list[float | None]:
    """At most `width` values: the mean of the known ones of each stretch."""
    if len(values) <= width:
        return list(values)
    edges = [len(values) * index // width for index in range(width + 1)]
    pieces = ([value for value in values[low:high] if value is not None] for low, high in itertools.pairwise(edges))
    return [statistics.fmean(piece) if piece else None for piece in pieces]


def _clip_outliers(values: Curve) -> list[float | None]:
    known = [value for value in values if value is not None]
    high = _SPARK_OUTLIER * statistics.median(known) if known else 0.0
    return [None if value is None else min(value, high) for value in values]


def sparkline_svg(values: Curve, label: str) -> str:
    """The same as a drawing with `label` for screen readers; empty where no value is known."""
    shown = _clip_outliers(values)
    known = [value for value in shown if value is not None]
    if not known:
        return ""
    low, span, last = min(known), max(known) - min(known) or 1.0, max(1, len(shown) - 1)
    width, height = _SPARK_WIDTH - 2 * _SPARK_EDGE, _SPARK_HEIGHT - 2 * _SPARK_EDGE
    bottom = _SPARK_HEIGHT - _SPARK_EDGE
    places = [
        None if value is None else (_SPARK_EDGE + index / last * width, bottom - (value - low) / span * height)
        for index, value in enumerate(shown)
    ]
    end = [place for place in places if place][-1]
    content = svg.tag("title", html.escape(label)) + svg.polyline(places, "curve b") + svg.dots([end], "mark b")
    box = f"0 0 {_SPARK_WIDTH:g} {_SPARK_HEIGHT:g}"
    return svg.tag("svg", content, viewBox=box, role="img", class_="spark", aria_label=label)

"""SVG for the report's figures: elements, axes with round ticks, plot frames and legends.

A drawing is 400 units wide: two fit side by side on a laptop, one fills a phone, and its text of
12.5 units is readable on both. Colours come from the page's style sheet by class, so that the same
drawing works in light, dark and print.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

WIDTH = 400
RIGHT = WIDTH - 14
CHARACTER = 6.3
"""About the width of a character of a label."""
AGE_STEP_MONTHS = 60
"""Ticks of an age axis: every five years, where the age bands of the evaluation meet."""

_BELOW = 46
_LEGEND_Y = 32
_MAX_AGE_TICKS = 7
_YEAR_MONTHS = 12
_DAY_S = 86_400
_DAY_STEPS = (1, 2, 3, 7, 14)
_MONTH_STEPS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600)
_MAX_TIME_STEPS = 5
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class ReportFigure:
    """A drawing with its text alternative.

    `caption` says what was measured on what; `columns` and `rows` are the numbers behind the drawing.
    """

    key: str
    svg: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def absent(cls, key: str, reason: str) -> ReportFigure:
        """A figure that cannot be drawn yet: no drawing, and why."""
        return cls(key, "", reason, (), ())


# ---------------------------------------------------------------------------------- elements
def coordinate(value: float) -> str:
    """`value` to a tenth of a unit, without needless characters."""
    shown = f"{value:.1f}".removesuffix(".0")
    return "0" if shown == "-0" else shown


def tag(name: str, content: str = "", **attributes: str | float) -> str:
    """An element; `content` is markup already, attribute names have _ for -."""
    markup = "".join(
        f' {key.strip("_").replace("_", "-")}="{html.escape(value) if isinstance(value, str) else coordinate(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{markup}>{content}</{name}>" if content else f"<{name}{markup}/>"


def text(label: str, x: float, y: float, class_: str = "tick", anchor: str = "start") -> str:
    """`label` escaped, with its base line at `y`."""
    return tag("text", html.escape(label), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return tag("path", d=f"M{coordinate(x1)} {coordinate(y1)}L{coordinate(x2)} {coordinate(y2)}", class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str) -> str:
    return tag("rect", x=x, y=y, width=max(width, 0), height=max(height, 0), class_=class_)


def polyline(points: Iterable[tuple[float, float] | None], class_: str) -> str:
    """A line through `points`; None breaks it."""
    steps, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        steps.append(f"{pen}{coordinate(point[0])} {coordinate(point[1])}")
        pen = "L"
    return tag("path", d="".join(steps), class_=class_) if steps else ""


def dots(points: Iterable[tuple[float, float]], class_: str) -> str:
    """All `points` in one path: lines of no length, whose round or square caps are the dots."""
    path = "".join(f"M{coordinate(x)} {coordinate(y)}h0" for x, y in points)
    return tag("path", d=path, class_=class_) if path else ""


def crosses(points: Iterable[tuple[float, float]], class_: str, half: float = 1.5) -> str:
    """All `points` in one path of oblique crosses that reach `half` units to each side."""
    strokes = "l{0} {0}m0-{0}l-{0} {0}".format(coordinate(2 * half))
    path = "".join(f"M{coordinate(x - half)} {coordinate(y - half)}{strokes}" for x, y in points)
    return tag("path", d=path, class_=class_) if path else ""


def drawing(key: str, title: str, desc: str, height: float, parts: Iterable[str]) -> str:
    """The whole picture, with a title and a description for screen readers."""
    names = tag("title", html.escape(title), id=f"{key}-title") + tag("desc", html.escape(desc), id=f"{key}-desc")
    box = f"0 0 {WIDTH} {coordinate(height)}"
    labels = f"{key}-title {key}-desc"
    return tag("svg", names + "".join(parts), viewBox=box, role="img", aria_labelledby=labels)


# -------------------------------------------------------------------------------------- axes
@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its label with the unit, its range, and the values that get a tick.

    `texts` are the tick labels, where these are not plain numbers.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...] = ()

    @property
    def labelled_ticks(self) -> list[tuple[float, str]]:
        return list(zip(self.ticks, self.texts or map(tick_text, self.ticks), strict=True))

    @classmethod
    def from_ticks(cls, label: str, ticks: tuple[float, ...]) -> Axis:
        """An axis from the first tick to the last."""
        return cls(label, ticks[0], ticks[-1], ticks)

    def at(self, value: float, start: float, end: float) -> float:
        """The position of `value` on an axis drawn from `start` to `end`."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that covers `span` in at most `count` steps."""
    if span <= 0:
        return 1.0
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in _STEPS if power * factor >= raw * 0.999_999)


def axis(label: str, values: Iterable[float], *, count: int = 5, zero: bool = False) -> Axis:
    """An axis that covers `values` with about `count` steps, from one multiple of the step to another.

    `zero` includes zero.
    """
    known = [*values, *([0.0] if zero else [])] or [0.0]
    low, high = min(known), max(known)
    step = nice_step(high - low, count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis.from_ticks(label, tuple(index * step for index in range(first, max(last, first + 1) + 1)))


def age_axis(label: str, values: Iterable[float]) -> Axis:
    """An axis in whole years from birth or below with a tick every five years; a plain one where that is too long."""
    known = [0.0, float(AGE_STEP_MONTHS), *values]
    low = math.floor(min(known) / _YEAR_MONTHS) * _YEAR_MONTHS
    high = math.ceil(max(known) / _YEAR_MONTHS) * _YEAR_MONTHS
    if high - low > _MAX_AGE_TICKS * AGE_STEP_MONTHS:
        return axis(label, known)
    first = math.ceil(low / AGE_STEP_MONTHS) * AGE_STEP_MONTHS
    return Axis(label, low, high, tuple(range(first, high + 1, AGE_STEP_MONTHS)))


def epoch_axis(epochs: Sequence[float]) -> Axis:
    """An axis whose ticks are whole epochs, the first and the last among them."""
    low, high = (min(epochs), max(epochs)) if epochs else (1.0, 1.0)
    step = max(1.0, nice_step(high - low, 6))
    step = step if step == int(step) else step * 2
    inner = [index * step for index in range(math.ceil((low + 1) / step), math.floor((high - step / 2) / step) + 1)]
    return Axis.from_ticks("Epoch", tuple(dict.fromkeys([low, *inner, max(high, low + 1)])))


def time_axis(low_s: float, high_s: float) -> Axis:
    """An axis between two Unix times with at most six ticks: midnights, or first days of months on a long one."""
    first, last = (datetime.fromtimestamp(end_s, UTC) for end_s in (low_s, high_s))
    days = (high_s - low_s) / _DAY_S
    if step := next((step for step in _DAY_STEPS if days <= step * _MAX_TIME_STEPS), None):
        start = (first + timedelta(days=1, microseconds=-1)).replace(hour=0, minute=0, second=0, microsecond=0)
        moments = [start + timedelta(days=step * number) for number in range(_MAX_TIME_STEPS + 1)]
        form = "{0.day} {0:%b}"
    else:
        moments, form = _months(first, last), "{0:%b %Y}"
    ticks = [moment for moment in moments if moment <= last]
    return Axis("Date (UTC)", low_s, high_s, tuple(tick.timestamp() for tick in ticks), tuple(map(form.format, ticks)))


def _months(first: datetime, last: datetime) -> list[datetime]:
    """First days of months, a round number of months apart, none before `first`."""
    low, high = (12 * day.year + day.month - 1 for day in (first, last))
    step = next(step for step in _MONTH_STEPS if high - low <= step * _MAX_TIME_STEPS)
    numbers = range(-(-(low + 1) // step) * step, high + 1, step)
    return [datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in numbers]


def tick_text(value: float) -> str:
    """`value` without trailing zeros, with a true minus sign and thin spaces between thousands."""
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.6g}"
    return text.replace(",", "\u202f").replace("-", "−")


# -------------------------------------------------------------------------------------- plots
@dataclass(frozen=True, slots=True)
class Plot:
    """An x and a y axis in a drawing of `height` units; the y label is above its axis, not rotated."""

    x: Axis
    y: Axis
    height: float = 290
    inset: float = 0
    right: float = RIGHT
    top: float = 52

    @property
    def left(self) -> float:
        """The x of the y axis: as far in as its longest tick label needs."""
        return 14 + CHARACTER * max(len(label) for _, label in self.y.labelled_ticks)

    @property
    def bottom(self) -> float:
        return self.height - _BELOW

    def at_x(self, value: float) -> float:
        return self.x.at(value, self.left + self.inset, self.right - self.inset)

    def at_y(self, value: float) -> float:
        return self.y.at(value, self.bottom, self.top)

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.at_x(x), self.at_y(y)

    def frame(self) -> str:
        return self.y_side() + self.x_side()

    def y_side(self) -> str:
        """Grid lines, tick labels and the label of the y axis."""
        parts = [text(self.y.label, 0, 12, "label")]
        for tick, label in self.y.labelled_ticks:
            y = self.at_y(tick)
            parts.append(line(self.left, y, self.right, y, "grid"))
            parts.append(text(label, self.left - 7, y + 4.3, "tick", "end"))
        return "".join(parts)

    def x_side(self) -> str:
        """Base line, ticks, tick labels and the label of the x axis."""
        parts = [self.base(), text(self.x.label, self.right, self.height - 6, "label", "end")]
        for tick, label in self.x.labelled_ticks:
            x = self.at_x(tick)
            parts.append(line(x, self.bottom, x, self.bottom + 4, "axis"))
            parts.append(text(label, x, self.bottom + 18, "tick", "middle"))
        return "".join(parts)

    def base(self) -> str:
        """The base line."""
        return line(self.left, self.bottom, self.right, self.bottom, "axis")

    def horizontal(self, y: float, class_: str) -> str:
        """A horizontal line at the value `y`."""
        return line(self.left, self.at_y(y), self.right, self.at_y(y), class_)

    def vertical(self, x: float, class_: str) -> str:
        """A vertical line at the value `x`."""
        return line(self.at_x(x), self.top, self.at_x(x), self.bottom, class_)

    def top_note(self, note: str, x: float, is_left: bool = False) -> str:
        """A small `note` at the upper end of the vertical line at `x`, to its right or left."""
        return text(note, self.at_x(x) + (-4 if is_left else 4), self.top + 9, "note", "end" if is_left else "start")


def legend(entries: list[tuple[str, str]]) -> str:
    """A row of samples and labels under the y label; an entry is (label, sample drawn around 0, 0)."""
    parts, x = [], 0.0
    for label, sample in entries:
        parts.append(tag("g", sample, transform=f"translate({coordinate(x + 12)} {_LEGEND_Y - 4})"))
        parts.append(text(label, x + 30, _LEGEND_Y))
        x += 30 + CHARACTER * len(label) + 16
    return "".join(parts)

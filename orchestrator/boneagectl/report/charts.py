"""Figures with two axes: curves over epochs, the scatter, Bland-Altman and the histogram.

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
_MOST_MARKERS = 40
_LABEL_GAP = 38
_LEVEL_AIR = 12
SAMPLES = {
    "boys": svg.dots([(0, 0)], "dot boys sample"),
    "girls": svg.crosses([(0, 0)], "cross girls sample", 3),
}


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


def curves(
    key: str, title: str, desc: str, label: str, epochs: Sequence[float], series: Sequence[Series],
    legs: Mapping[float, str], best: Point | None = None,
) -> str:  # fmt: skip
    """Curves over `epochs`; `legs` gives the words at each epoch number where a leg ends, `best` a ringed point."""
    known = [value for one in series for value in one.values if value is not None]
    plot = Plot(epoch_axis(epochs), axis(label, known, zero=True), inset=8)
    parts = [plot.frame(), _leg_marks(plot, legs)]
    parts += [_curve(plot, epochs, one) for one in series]
    if best:
        parts.append(svg.tag("circle", cx=plot.at_x(best[0]), cy=plot.at_y(best[1]), r=6.5, class_="ring"))
    entries = [(one.name, svg.line(-11, 0, 11, 0, f"curve {one.style}") + _marks([(0, 0)], one)) for one in series]
    entries += [("kept epoch", svg.tag("circle", cx=0, cy=0, r=6, class_="ring"))] if best else []
    return svg.drawing(key, title, desc, plot.height, [*parts, legend(entries)])


def _curve(plot: Plot, epochs: Sequence[float], one: Series) -> str:
    places = [None if y is None else plot.at(x, y) for x, y in zip(epochs, one.values, strict=True)]
    marked = [place for place in places if place] if len(places) <= _MOST_MARKERS else []
    return svg.polyline(places, f"curve {one.style}") + _marks(marked, one)


def _marks(places: Sequence[Point], one: Series) -> str:
    return svg.dots(places, f"mark {one.style}")


def _leg_marks(plot: Plot, legs: Mapping[float, str]) -> str:
    """A dashed line where a leg ends; the legs are named only where each name has room before the next line."""
    places = [*map(plot.at_x, legs), RIGHT]
    has_room = all(after - before >= _LABEL_GAP for before, after in itertools.pairwise(places))
    names = [plot.note_top(words, epoch) for epoch, words in legs.items()] if has_room else []
    return "".join([*(plot.upright(epoch, "leg") for epoch in legs), *names])


def scatter(key: str, title: str, desc: str, boys: Sequence[Point], girls: Sequence[Point]) -> str:
    """Label against prediction in months, with the line on which a perfect network would lie."""
    ages = age_axis("Labelled bone age (months)", [value for point in (*boys, *girls) for value in point])
    plot = Plot(ages, replace(ages, label="Predicted bone age (months)"), height=400)
    identity = svg.polyline([plot.at(ages.low, ages.low), plot.at(ages.high, ages.high)], "identity")
    entries = [*_sexes(boys, girls), ("prediction = label", svg.line(-11, 0, 11, 0, "identity"))]
    return svg.drawing(
        key, title, desc, plot.height, [plot.frame(), _cloud(plot, boys, girls), identity, legend(entries)]
    )


def _cloud(plot: Plot, boys: Sequence[Point], girls: Sequence[Point]) -> str:
    marks = svg.dots([plot.at(*point) for point in boys], "dot boys")
    return marks + svg.crosses([plot.at(*point) for point in girls], "cross girls")


def _sexes(boys: Sequence[object], girls: Sequence[object]) -> list[tuple[str, str]]:
    return [(f"{name} ({len(rows)})", SAMPLES[name]) for name, rows in (("boys", boys), ("girls", girls))]


def bland_altman(
    key: str, title: str, desc: str, boys: Sequence[Point], girls: Sequence[Point], levels: Sequence[tuple[float, str]]
) -> str:
    """Mean of label and prediction against their difference; `levels` are (months, in short): limits and bias."""
    differences = [difference for _, difference in (*boys, *girls)] + [value for value, _ in levels]
    means = age_axis("Mean of label and prediction (months)", [mean for mean, _ in (*boys, *girls)])
    differences_axis = axis("Prediction − label (months)", differences, count=6, zero=True)
    plot = Plot(means, differences_axis, height=400, right=_room_for(levels))
    parts = [plot.frame(), _cloud(plot, boys, girls), plot.across(0, "axis")]
    entries = _sexes(boys, girls)
    entries += [("bias and limits", svg.line(-11, 0, 11, 0, "level"))] if levels else []
    for value, words in levels:
        parts.append(plot.across(value, "level"))
        parts.append(svg.text(words, plot.right + 5, plot.at_y(value) + 4.3, "value"))
    return svg.drawing(key, title, desc, plot.height, [*parts, legend(entries)])


def calibration(key: str, title: str, desc: str, points: Sequence[Point]) -> str:
    """Mean prediction against mean label of each group, joined in order, with the line of equality."""
    ages = age_axis("Mean prediction (months)", [value for point in points for value in point])
    plot = Plot(ages, replace(ages, label="Mean label (months)"), height=400)
    places = [plot.at(*point) for point in points]
    identity = svg.polyline([plot.at(ages.low, ages.low), plot.at(ages.high, ages.high)], "identity")
    entries = [("a tenth of the radiographs", svg.dots([(0, 0)], "mark b")),
               ("prediction = label", svg.line(-11, 0, 11, 0, "identity"))]  # fmt: skip
    drawn = [plot.frame(), identity, svg.polyline(places, "curve b"), svg.dots(places, "mark b"), legend(entries)]
    return svg.drawing(key, title, desc, plot.height, drawn)


def _room_for(levels: Sequence[tuple[float, str]]) -> float:
    """Where a plot ends whose levels are named to its right."""
    longest = max((len(words) for _, words in levels), default=0)
    return min(RIGHT, svg.WIDTH - _LEVEL_AIR - 1.1 * svg.CHARACTER * longest)


def histogram(
    key: str, title: str, desc: str, edges: Sequence[float], boys: Sequence[int], girls: Sequence[int]
) -> str:
    """Counts by sex between `edges` (one more than counts), as a filled and a dashed outline."""
    plot = Plot(
        age_axis("Labelled bone age (months)", edges), axis("Radiographs", [*boys, *girls], zero=True), height=400
    )
    parts = [plot.y_side()]
    for counts, style in ((boys, "boys"), (girls, "girls")):
        parts.append(svg.polyline(_steps(plot, edges, counts), f"outline {style}"))
    entries = [(f"{name} ({sum(counts)})", svg.rect(-11, -5, 22, 10, f"outline {name}"))
               for name, counts in (("boys", boys), ("girls", girls))]  # fmt: skip
    return svg.drawing(key, title, desc, plot.height, [*parts, plot.x_side(), legend(entries)])


def _steps(plot: Plot, edges: Sequence[float], counts: Sequence[int]) -> list[Point]:
    """The outline of the bars, from the base line back to it."""
    corners = [(edges[0], 0.0)]
    for index, number in enumerate(counts):
        corners += [(edges[index], float(number)), (edges[index + 1], float(number))]
    return [plot.at(x, y) for x, y in [*corners, (edges[-1], 0.0)]]


# == bars: Figures made of bars: upright ones with intervals, and lying ones with their value in words.

_AIR = 1.08
_CAP = 6
_ROW = 46
_WIDEST_BAR = 54
_LEGEND_ROW, _LEGEND_COLUMNS = 18, 4


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, a second line under it, its value, the value in words, and its 95 % interval; the lead
    bar is the one the figure is about.
    """

    name: str
    note: str
    value: float
    words: str
    interval: tuple[float, ...] | None = None
    is_lead: bool = False

    @property
    def top(self) -> float:
        """The highest value the drawing must hold."""
        return max((self.value, *(self.interval or ())))


@dataclass(frozen=True, slots=True)
class Stack:
    """One bar made of parts: its name, the whole in words, and a value for each part."""

    name: str
    words: str
    parts: tuple[float, ...]


def upright(key: str, title: str, desc: str, label: str, bars: Sequence[Bar], high: float) -> str:
    """Bars side by side with whiskers on a scale of 0..`high`; each value stands above its own whisker."""
    plot = Plot(Axis.of("", (0, 1)), axis(label, [_AIR * high], zero=True), height=270, top=32)
    step = (RIGHT - plot.left) / len(bars)
    parts = [_upright_bar(plot, bar, plot.left + step * (index + 0.5), step) for index, bar in enumerate(bars)]
    return svg.drawing(key, title, desc, plot.height, [plot.y_side(), *parts, plot.base()])


def _upright_bar(plot: Plot, bar: Bar, x: float, step: float) -> str:
    width = min(_WIDEST_BAR, 0.6 * step)
    y = plot.at_y(bar.value)
    parts = [svg.rect(x - width / 2, y, width, plot.bottom - y, "bar")]
    if bar.interval:
        low, high = map(plot.at_y, bar.interval)
        parts.append(svg.line(x, low, x, high, "whisker"))
        parts += [svg.line(x - _CAP, end, x + _CAP, end, "whisker") for end in (low, high)]
    parts.append(svg.text(bar.words, x, plot.at_y(bar.top) - 7, "value", "middle"))
    parts.append(svg.text(bar.name, x, plot.bottom + 18, "tick", "middle"))
    parts.append(svg.text(bar.note, x, plot.bottom + 35, "note", "middle"))
    return "".join(parts)


def lying(key: str, title: str, desc: str, bars: Sequence[Bar], high: float) -> str:
    """Bars under each other on a scale of 0..`high`, name and value in a line above each."""
    parts = [_lying_bar(bar, index * _ROW, high) for index, bar in enumerate(bars)]
    return svg.drawing(key, title, desc, _ROW * len(bars), parts)


def _lying_bar(bar: Bar, y: float, high: float) -> str:
    scale = svg.WIDTH / high if high > 0 else 0
    parts = [svg.text(bar.name, 0, y + 13, "label"), svg.text(bar.words, svg.WIDTH, y + 13, "value", "end")]
    parts.append(svg.rect(0, y + 20, svg.WIDTH, 10, "track"))
    parts.append(svg.rect(0, y + 20, bar.value * scale, 10, "bar lead" if bar.is_lead else "bar"))
    if bar.interval:
        low, top = (edge * scale for edge in bar.interval)
        parts.append(svg.line(low, y + 25, top, y + 25, "whisker"))
        parts += [svg.line(edge, y + 18, edge, y + 32, "whisker") for edge in (low, top)]
    return "".join(parts)


def stacked(key: str, title: str, desc: str, names: Sequence[str], stacks: Sequence[Stack]) -> str:
    """Bars under each other on one scale, each split into the parts `names`; the legend stands above, four a line."""
    top = _LEGEND_ROW * -(-len(names) // _LEGEND_COLUMNS) + 8
    high = max(sum(stack.parts) for stack in stacks)
    parts = [_legend_entry(place, name) for place, name in enumerate(names)]
    parts += [_stack(stack, top + place * _ROW, svg.WIDTH / high) for place, stack in enumerate(stacks)]
    return svg.drawing(key, title, desc, top + _ROW * len(stacks), parts)


def _legend_entry(place: int, name: str) -> str:
    row, column = divmod(place, _LEGEND_COLUMNS)
    x, y = column * svg.WIDTH / _LEGEND_COLUMNS, row * _LEGEND_ROW
    return svg.rect(x + 1, y + 3, 14, 10, f"part p{place}") + svg.text(name, x + 20, y + 12)


def _stack(stack: Stack, y: float, scale: float) -> str:
    parts = [svg.text(stack.name, 0, y + 13, "label"), svg.text(stack.words, svg.WIDTH, y + 13, "value", "end")]
    x = 0.0
    for place, value in enumerate(stack.parts):
        if value > 0:
            parts.append(svg.rect(x, y + 20, value * scale, 12, f"part p{place}"))
        x += value * scale
    return "".join(parts)


# == spark: A curve as small as a word: in a terminal, and in a table of a page.

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = "_.-~=+*#"
_FAR_OFF = 4
"""Times the median: a network that starts far off would flatten the rest."""
_WIDTH, _HEIGHT, _EDGE = 120.0, 28.0, 3.0

Curve = Sequence[float | None]


def text(values: Curve, width: int, is_plain: bool) -> str:
    """`values` in at most `width` characters, a gap for what is not known; `is_plain` keeps to ASCII."""
    drawn = _clipped(_thinned(values, width))
    known = [value for value in drawn if value is not None]
    if not known:
        return ""
    marks, low, span = _ASCII if is_plain else _BLOCKS, min(known), max(known) - min(known)
    steps = len(marks) - 1
    return "".join(
        " " if value is None else marks[round((value - low) / span * steps) if span else 0] for value in drawn
    )


def _thinned(values: Curve, width: int) -> list[float | None]:
    """At most `width` values: the mean of the known ones of each stretch."""
    if len(values) <= width:
        return list(values)
    edges = [len(values) * place // width for place in range(width + 1)]
    pieces = ([value for value in values[edges[at] : edges[at + 1]] if value is not None] for at in range(width))
    return [statistics.fmean(piece) if piece else None for piece in pieces]


def _clipped(values: Curve) -> list[float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return list(values)
    high = _FAR_OFF * statistics.median(known)
    return [None if value is None else min(value, high) for value in values]


def drawing(values: Curve, words: str) -> str:
    """The same as a drawing; `words` say it to those who do not see it. Nothing where nothing is known."""
    drawn = _clipped(values)
    known = [value for value in drawn if value is not None]
    if not known:
        return ""
    low, span, last = min(known), max(known) - min(known) or 1.0, max(1, len(drawn) - 1)
    places = [
        None if value is None else (_EDGE + at / last * (_WIDTH - 2 * _EDGE),
                                    _HEIGHT - _EDGE - (value - low) / span * (_HEIGHT - 2 * _EDGE))
        for at, value in enumerate(drawn)
    ]  # fmt: skip
    ends = [place for place in places if place]
    content = svg.polyline(places, "curve b") + svg.dots([ends[-1]], "mark b")
    title = svg.tag("title", html.escape(words))
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    return svg.tag("svg", title + content, viewBox=box, role="img", class_="spark", aria_label=words)

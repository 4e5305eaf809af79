"""Figures with two axes: curves over epochs, the scatter, Bland-Altman and the histogram.

Each function takes plain numbers and returns one drawing. Series differ in dash and marker as well
as in colour, so that a figure reads the same in gray.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from boneagectl.report import svg
from boneagectl.report.plot import RIGHT, Plot, legend
from boneagectl.report.scale import age_axis, axis, epoch_axis

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

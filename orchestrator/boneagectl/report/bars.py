"""Figures made of bars: upright ones with intervals, and lying ones with their value in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boneagectl.report import svg
from boneagectl.report.plot import RIGHT, Plot
from boneagectl.report.scale import Axis, axis

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

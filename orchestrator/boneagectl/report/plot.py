"""A plot's frame: where the axes stand, their ticks and labels, and the legend."""

from __future__ import annotations

from dataclasses import dataclass

from boneagectl.report import svg
from boneagectl.report.scale import Axis

RIGHT = svg.WIDTH - 14
_BELOW = 46
_LEGEND_Y = 32


@dataclass(frozen=True, slots=True)
class Plot:
    """An x and a y axis in a drawing of `height` units; the y label stands above its axis, never turned."""

    x: Axis
    y: Axis
    height: float = 290
    inset: float = 0
    right: float = RIGHT
    top: float = 52

    @property
    def left(self) -> float:
        """The x of the y axis: as far in as its longest tick label needs."""
        return 14 + svg.CHARACTER * max(len(words) for _, words in self.y.named)

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
        parts = [svg.text(self.y.label, 0, 12, "label")]
        for tick, words in self.y.named:
            y = self.at_y(tick)
            parts.append(svg.line(self.left, y, self.right, y, "grid"))
            parts.append(svg.text(words, self.left - 7, y + 4.3, "tick", "end"))
        return "".join(parts)

    def x_side(self) -> str:
        """Base line, ticks, tick labels and the label of the x axis."""
        parts = [self.base(), svg.text(self.x.label, self.right, self.height - 6, "label", "end")]
        for tick, words in self.x.named:
            x = self.at_x(tick)
            parts.append(svg.line(x, self.bottom, x, self.bottom + 4, "axis"))
            parts.append(svg.text(words, x, self.bottom + 18, "tick", "middle"))
        return "".join(parts)

    def base(self) -> str:
        """The line the plot stands on."""
        return svg.line(self.left, self.bottom, self.right, self.bottom, "axis")

    def across(self, y: float, class_: str) -> str:
        """A level line at the value `y`."""
        return svg.line(self.left, self.at_y(y), self.right, self.at_y(y), class_)

    def upright(self, x: float, class_: str) -> str:
        """A vertical line at the value `x`."""
        return svg.line(self.at_x(x), self.top, self.at_x(x), self.bottom, class_)

    def note_top(self, words: str, x: float) -> str:
        """Small words at the upper end of the vertical line at `x`, to its right."""
        return svg.text(words, self.at_x(x) + 4, self.top + 9, "note")


def legend(entries: list[tuple[str, str]]) -> str:
    """A row of samples and words under the y label; an entry is (words, sample drawn around 0, 0)."""
    parts, x = [], 0.0
    for words, sample in entries:
        parts.append(svg.tag("g", sample, transform=f"translate({svg.coordinate(x + 12)} {_LEGEND_Y - 4})"))
        parts.append(svg.text(words, x + 30, _LEGEND_Y))
        x += 30 + svg.CHARACTER * len(words) + 16
    return "".join(parts)

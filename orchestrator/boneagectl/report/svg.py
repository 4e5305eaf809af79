"""The few SVG elements the figures are made of, and the figure as the template takes it.

A drawing is 400 units wide: two stand side by side on a laptop, one fills a phone, and its text of
12.5 units stays readable on both. Colours come from the page's style sheet by class, so that the
same drawing serves light, dark and paper.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 400
CHARACTER = 6.3
"""About the width of a character at the size figures are labelled in."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with everything a reader may need in its place.

    `caption` says what was measured on what; `columns` and `rows` are the numbers behind the drawing.
    """

    key: str
    svg: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def absent(cls, key: str, words: str) -> Figure:
        """A figure that cannot be drawn yet: no drawing, and why."""
        return cls(key, "", words, (), ())


def coordinate(value: float) -> str:
    """`value` to a tenth of a unit, without needless characters."""
    short = f"{value:.1f}".removesuffix(".0")
    return "0" if short == "-0" else short


def tag(name: str, content: str = "", **attributes: str | float) -> str:
    """An element; `content` is markup already, attribute names are written with _ for -."""
    written = "".join(
        f' {key.strip("_").replace("_", "-")}="{html.escape(value) if isinstance(value, str) else coordinate(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{written}>{content}</{name}>" if content else f"<{name}{written}/>"


def text(words: str, x: float, y: float, class_: str = "tick", anchor: str = "start") -> str:
    """`words` as given, escaped, with their base line at `y`."""
    return tag("text", html.escape(words), x=x, y=y, class_=class_, text_anchor=anchor)


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
    arms = "l{0} {0}m0-{0}l-{0} {0}".format(coordinate(2 * half))
    path = "".join(f"M{coordinate(x - half)} {coordinate(y - half)}{arms}" for x, y in points)
    return tag("path", d=path, class_=class_) if path else ""


def drawing(key: str, title: str, desc: str, height: float, parts: Iterable[str]) -> str:
    """The whole picture, named and described for those who do not see it."""
    names = tag("title", html.escape(title), id=f"{key}-title") + tag("desc", html.escape(desc), id=f"{key}-desc")
    box = f"0 0 {WIDTH} {coordinate(height)}"
    labels = f"{key}-title {key}-desc"
    return tag("svg", names + "".join(parts), viewBox=box, role="img", aria_labelledby=labels)

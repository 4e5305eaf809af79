"""A curve as small as a word: in a terminal, and in a table of a page."""

from __future__ import annotations

import html
import statistics
from collections.abc import Sequence

from boneagectl.report import svg

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

"""Markdown from plain values: numbers, intervals, cells and tables, whatever a value holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Values = Mapping[str, Any]
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~!&])")


def part(values: Any, *names: str) -> Values:
    """The mapping at the end of `names`, or an empty one where anything on the way is missing."""
    for name in names:
        values = values.get(name) if isinstance(values, Mapping) else None
    return values if isinstance(values, Mapping) else {}


def number(value: Any, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def span(ends: Any) -> str:
    """An interval as ``low to high``; a dash where it has no value."""
    low, high = ends or (None, None)
    return "-" if low is None or high is None else f"{number(low)} to {number(high)}"


def cell(value: Any) -> str:
    """`value` on one line, with all that Markdown or HTML would act on escaped."""
    return "-" if value is None else _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *lines]

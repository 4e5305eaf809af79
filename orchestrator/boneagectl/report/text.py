"""Numbers as text: rounded, with their unit and a true minus sign; "–" where a value is unknown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

UNKNOWN = "–"


def number(value: Any) -> float | None:
    """`value` where it is a finite number; None for anything else: null, NaN, a truth value, a text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def numbers(values: Any, count: int) -> tuple[float, ...] | None:
    """`values` where they are `count` finite numbers, otherwise None."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return None
    known = tuple(known for value in values if (known := number(value)) is not None)
    return known if len(known) == count else None


def section(value: Any) -> Mapping[str, Any]:
    """`value` where it is an object, otherwise an empty one: a part that is not there holds nothing."""
    return value if isinstance(value, Mapping) else {}


def plain(value: Any, digits: int = 1) -> str:
    """`value` with `digits` decimals and thin spaces between thousands."""
    known = number(value)
    if known is None:
        return UNKNOWN
    shown = f"{known:,.{digits}f}".replace(",", "\u202f")
    return shown.replace("-", "−") if shown.strip("-0.") else shown.replace("-", "")


def count(value: Any) -> str:
    return plain(value, 0)


def months(value: Any, digits: int = 1) -> str:
    return with_unit(plain(value, digits), "months")


def with_unit(shown: str, unit: str) -> str:
    return shown if shown == UNKNOWN else f"{shown} {unit}"


def signed(value: Any, digits: int = 1) -> str:
    """`value` with its sign, plus included: for an error that has a direction."""
    shown = plain(value, digits)
    return f"+{shown}" if (number(value) or 0) > 0 and shown.strip("0.") else shown


def interval(bounds: Any, digits: int = 1) -> str:
    """``low to high``; the word keeps a negative bound readable."""
    known = numbers(bounds, 2)
    return UNKNOWN if known is None else f"{plain(known[0], digits)} to {plain(known[1], digits)}"


def share(value: Any) -> str:
    """A share of 0..1 as a percentage."""
    known = number(value)
    return UNKNOWN if known is None else f"{plain(100 * known, 1)} %"


def dollars(value: Any) -> str:
    known = number(value)
    return UNKNOWN if known is None else f"US$ {plain(known, 2)}"


def duration(seconds: Any) -> str:
    """Seconds in the unit a person would use."""
    known = number(seconds)
    if known is None:
        return UNKNOWN
    if known < 60:
        return f"{plain(known, 1)} s"
    minutes = known / 60
    if minutes < 60:
        return f"{plain(minutes, 1)} min"
    return f"{round(minutes) // 60} h {round(minutes) % 60:02d} min"


def day(time_s: float) -> str:
    """The day of a Unix time in UTC: ``5 Jan 2027``."""
    moment = datetime.fromtimestamp(time_s, UTC)
    return f"{moment.day} {moment:%b %Y}"


def minute(time_s: float) -> str:
    """A Unix time to the minute: ``5 Jan 2027, 21:14 UTC``."""
    return f"{day(time_s)}, {datetime.fromtimestamp(time_s, UTC):%H:%M} UTC"


def inline(value: Any) -> str:
    """Any value of a config or an environment in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inline(inner)}" for key, inner in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(inline, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return UNKNOWN if value is None or value == "" else str(value)

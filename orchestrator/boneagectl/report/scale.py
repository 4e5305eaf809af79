"""From data to drawing units: nice ticks, axes and the bins of a summary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

AGE_STEP_MONTHS = 60
"""Ticks of an age axis: every five years, where the age bands of the evaluation meet."""

_MOST_AGE_TICKS = 7
_YEAR_MONTHS = 12
_DAY_S = 86_400
_DAY_STEPS = (1, 2, 3, 7, 14)
_MONTH_STEPS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600)
_MOST_TIME_STEPS = 5
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, in which unit, from where to where, and the values that get a tick.

    `texts` are the words at the ticks, where these are not plain numbers.
    """

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]
    texts: tuple[str, ...] = ()

    @property
    def named(self) -> list[tuple[float, str]]:
        """Each tick with its words."""
        return list(zip(self.ticks, self.texts or map(tick_text, self.ticks), strict=True))

    @classmethod
    def of(cls, label: str, ticks: tuple[float, ...]) -> Axis:
        """An axis that ends at its outer ticks."""
        return cls(label, ticks[0], ticks[-1], ticks)

    def at(self, value: float, start: float, end: float) -> float:
        """The place of `value` when the axis is drawn from `start` to `end`."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def nice_step(span: float, count: int) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that covers `span` in at most `count` steps."""
    if span <= 0:
        return 1.0
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(power * factor for factor in _STEPS if power * factor >= raw * 0.999_999)


def _multiples(low: float, high: float, step: float) -> tuple[float, ...]:
    """The multiples of `step` from the last one not above `low` to the first one not below `high`."""
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(index * step for index in range(first, max(last, first + 1) + 1))


def axis(label: str, values: Iterable[float], *, count: int = 5, zero: bool = False) -> Axis:
    """An axis that covers `values` with about `count` steps; `zero` makes it begin at zero or below."""
    known = [*values, *([0.0] if zero else [])] or [0.0]
    low, high = min(known), max(known)
    return Axis.of(label, _multiples(low, high, nice_step(high - low, count)))


def age_axis(label: str, values: Iterable[float]) -> Axis:
    """An axis from birth or below in whole years, a tick each five, unless the values lie too far apart for that."""
    known = [0.0, float(AGE_STEP_MONTHS), *values]
    low = math.floor(min(known) / _YEAR_MONTHS) * _YEAR_MONTHS
    high = math.ceil(max(known) / _YEAR_MONTHS) * _YEAR_MONTHS
    if high - low > _MOST_AGE_TICKS * AGE_STEP_MONTHS:
        return axis(label, known)
    return Axis(
        label, low, high, tuple(range(math.ceil(low / AGE_STEP_MONTHS) * AGE_STEP_MONTHS, high + 1, AGE_STEP_MONTHS))
    )


def epoch_axis(epochs: Sequence[float]) -> Axis:
    """An axis whose ticks are whole epochs, the first and the last among them."""
    low, high = (min(epochs), max(epochs)) if epochs else (1.0, 1.0)
    step = max(1.0, nice_step(high - low, 6))
    step = step if step == int(step) else step * 2
    inner = [index * step for index in range(math.ceil((low + 1) / step), math.floor((high - step / 2) / step) + 1)]
    return Axis.of("Epoch", tuple(dict.fromkeys([low, *inner, max(high, low + 1)])))


def time_axis(low_s: float, high_s: float) -> Axis:
    """An axis between two Unix times with at most six ticks: midnights, or where it is long first days of months."""
    first, last = (datetime.fromtimestamp(end_s, UTC) for end_s in (low_s, high_s))
    days = (high_s - low_s) / _DAY_S
    step = next((step for step in _DAY_STEPS if days <= step * _MOST_TIME_STEPS), None)
    found, shown = (_midnights(first, step), "{0.day} {0:%b}") if step else (_months(first, last), "{0:%b %Y}")
    ticks = [day for day in found if day <= last]
    return Axis("Date (UTC)", low_s, high_s, tuple(day.timestamp() for day in ticks), tuple(map(shown.format, ticks)))


def _midnights(first: datetime, step: int) -> list[datetime]:
    """A midnight each `step` days, from the first one not before `first`."""
    begin = (first + timedelta(days=1, microseconds=-1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return [begin + timedelta(days=step * number) for number in range(_MOST_TIME_STEPS + 1)]


def _months(first: datetime, last: datetime) -> list[datetime]:
    """First days of months that are a round number of months apart, none before `first`."""
    low, high = (12 * day.year + day.month - 1 for day in (first, last))
    step = next(step for step in _MONTH_STEPS if high - low <= step * _MOST_TIME_STEPS)
    numbers = range(-(-(low + 1) // step) * step, high + 1, step)
    return [datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in numbers]


def tick_text(value: float) -> str:
    """`value` as a reader writes it: no trailing zeros, a true minus sign, thin spaces between thousands."""
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.6g}"
    return text.replace(",", "\u202f").replace("-", "−")

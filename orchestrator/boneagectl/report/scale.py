"""From data to drawing units: nice ticks, axes and the bins of a summary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

AGE_STEP_MONTHS = 60
"""Ticks of an age axis: every five years, where the age bands of the evaluation meet."""

_MOST_AGE_TICKS = 7
_YEAR_MONTHS = 12
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: what it shows, in which unit, from where to where, and the values that get a tick."""

    label: str
    low: float
    high: float
    ticks: tuple[float, ...]

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


def tick_text(value: float) -> str:
    """`value` as a reader writes it: no trailing zeros, a true minus sign, thin spaces between thousands."""
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.6g}"
    return text.replace(",", "\u202f").replace("-", "−")

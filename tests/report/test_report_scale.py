"""Ticks are round, few, and cover the data; numbers are formatted for readers."""

from __future__ import annotations

import math

import pytest

from boneagectl.report import text as report_text
from boneagectl.report.svg import age_axis, axis, epoch_axis, nice_step, tick_text, time_axis

NINTH_NOV_S = 1_794_218_400
"""A Monday of 2026, 10:00 UTC."""


@pytest.mark.parametrize("span", [1e-9, 0.03, 0.9, 1, 7, 33.04, 228, 5000, 3e12])
def test_steps_are_round_and_few(span: float) -> None:
    step = nice_step(span, 5)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 2.5, 5, 10)) < 1e-6
    assert 2 <= span / step <= 5.001


@pytest.mark.parametrize("values", [[3.0], [0.0], [-4, 9], [228, 1e7], []])
def test_axis_covers_its_values_with_few_ticks(values: list[float]) -> None:
    for made in (axis("x", values), age_axis("x", values)):
        assert made.low < made.high
        assert all(made.low <= value <= made.high for value in values)
        assert 2 <= len(made.ticks) <= 8


def test_age_axis_has_a_tick_each_five_years() -> None:
    made = age_axis("x", [-3, 231])
    assert (made.low, made.high, made.ticks) == (-12, 240, (0, 60, 120, 180, 240))


@pytest.mark.parametrize("count", [1, 2, 3, 15, 24, 100, 1000])
def test_epoch_axis_has_whole_epochs_and_both_ends(count: int) -> None:
    made = epoch_axis([float(epoch) for epoch in range(1, count + 1)])
    assert made.ticks[0] == 1
    assert made.high == max(count, 2)
    assert all(tick == int(tick) for tick in made.ticks)
    assert list(made.ticks) == sorted(set(made.ticks))
    assert len(made.ticks) <= 9


@pytest.mark.parametrize(
    ("days", "texts"),
    [
        (2, "10 Nov, 11 Nov"),
        (7, "10 Nov, 12 Nov, 14 Nov, 16 Nov"),
        (30, "10 Nov, 17 Nov, 24 Nov, 1 Dec, 8 Dec"),
        (100, "Dec 2026, Jan 2027, Feb 2027"),
        (3000, "Jan 2028, Jan 2030, Jan 2032, Jan 2034"),
    ],
)
def test_a_time_axis_has_few_ticks_on_days_and_months(days: int, texts: str) -> None:
    made = time_axis(NINTH_NOV_S, NINTH_NOV_S + days * 86_400)
    assert ", ".join(made.texts) == texts
    assert all(made.low <= tick <= made.high and tick % 86_400 == 0 for tick in made.ticks)
    assert made.labelled_ticks == list(zip(made.ticks, made.texts, strict=True))


@pytest.mark.parametrize("days", [2, 3, 5, 11, 15, 36, 71, 160, 400, 1000, 4000, 20_000])
def test_a_time_axis_has_two_to_six_ticks(days: int) -> None:
    assert 2 <= len(time_axis(NINTH_NOV_S, NINTH_NOV_S + days * 86_400).ticks) <= 6


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-60, "−60"), (2.5, "2.5"), (12000, "12\u202f000"), (0.00002, "2e−05"), (3e9, "3e+09")],
)
def test_ticks_are_short(value: float, text: str) -> None:
    assert tick_text(value) == text


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (report_text.plain(-0.04), "0.0"),
        (report_text.signed(0.04), "0.0"),
        (report_text.signed(1.26), "+1.3"),
        (report_text.plain(None), report_text.UNKNOWN),
        (report_text.months(math.nan), report_text.UNKNOWN),
        (report_text.share(0.4183), "41.8 %"),
        (report_text.interval([-1, 2]), "−1.0 to 2.0"),
        (report_text.interval([1, None]), report_text.UNKNOWN),
        (report_text.duration(59), "59.0 s"),
        (report_text.duration(5024), "1 h 24 min"),
        (report_text.duration(7199), "2 h 00 min"),
        (report_text.inline({"a": [1, True, 0.5]}), "a 1, yes, 0.5"),
        (report_text.inline(1), "1"),
    ],
)
def test_numbers_as_text(shown: str, text: str) -> None:
    assert shown == text

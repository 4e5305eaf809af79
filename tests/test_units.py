"""What people type and read: parsed and printed in one way, money always rounded up."""

from __future__ import annotations

import pytest

from boneagectl import units
from boneagectl.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("11h30m", 41_400), ("90m", 5400), ("45s", 45), ("1d2h", 93_600), (" 2h ", 7200), ("1d1h1m1s", 90_061)],
)
def test_durations(text: str, seconds: int) -> None:
    assert units.parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "0s", "12", "h", "1.5h", "-2h", "2h1d", "2 h", "2H", "∞", "1h\n2"])
def test_no_durations(text: str) -> None:
    with pytest.raises(UsageError, match="is not a duration"):
        units.parse_duration_s(text)


@pytest.mark.parametrize(
    ("amount", "micro"),
    [("12.50", 12_500_000), ("0", 0), (0.9, 900_000), ("0.0000001", 1), (0.1 + 0.2, 300_001), ("1e-9", 1),
     ("0.123456", 123_456), ("0.1234561", 123_457), ("999999999.999999", 999_999_999_999_999)],
)  # fmt: skip
def test_dollars_are_rounded_up_to_the_micro_dollar(amount: str | float, micro: int) -> None:
    assert units.usd_micro(amount) == micro


@pytest.mark.parametrize("amount", ["", "five", "-1", "1e9", "nan", "inf", "-inf", float("nan"), float("inf"), "1,50"])
def test_no_dollars(amount: str | float) -> None:
    with pytest.raises(UsageError, match="dollars"):
        units.usd_micro(amount)


@pytest.mark.parametrize(("text", "seconds"), [("20", 72_000), ("1.5", 5400), ("0", 0), ("0.0001", 0)])
def test_hours(text: str, seconds: int) -> None:
    assert units.parse_hours_s(text) == seconds


@pytest.mark.parametrize("text", ["", "2h", "-1", "nan", "inf", "1000000"])
def test_no_hours(text: str) -> None:
    with pytest.raises(UsageError, match="hours"):
        units.parse_hours_s(text)


@pytest.mark.parametrize(
    ("rate", "seconds", "cost"), [(900_000, 3600, 900_000), (1, 1, 1), (0, 999, 0), (900_000, 1, 250), (7, 3601, 8)]
)
def test_a_cost_is_never_understated(rate: int, seconds: int, cost: int) -> None:
    assert units.cost_usd_micro(rate, seconds) == cost


def test_printing() -> None:
    assert units.format_usd(1_500_000) == "$1.50"
    assert units.format_usd(1_234_567_890_000) == "$1,234,567.89"
    assert units.format_usd(1_500) == "$0.0015"
    assert [units.format_duration(value) for value in (0, 59.6, 200, 7500)] == [
        "0 s", "1 min 00 s", "3 min 20 s", "2 h 05 min",
    ]  # fmt: skip
    assert [units.format_bytes(value) for value in (0, 999, 1500, 2_000_000, 3 * 10**9, 4 * 10**12)] == [
        "0 B", "999 B", "1.5 kB", "2.0 MB", "3.0 GB", "4.0 TB",
    ]  # fmt: skip

"""Money, durations and sizes: parsed once, kept as integers, printed in one way."""

from __future__ import annotations

import re

from boneagectl.errors import UsageError

MICRO = 1_000_000
_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")


def parse_duration_s(text: str) -> int:
    """``11h30m``, ``90m``, ``45s`` or ``1d2h`` in seconds."""
    match = _DURATION.fullmatch(text.strip())
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0, 0)
    total_s = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total_s == 0:
        raise UsageError(f"{text!r} is not a duration", "write it as 11h30m, 90m or 45s")
    return total_s


def parse_hours_s(text: str) -> int:
    """Hours as a decimal number, in seconds, rounded down."""
    from decimal import Decimal, InvalidOperation

    try:
        hours = Decimal(text)
    except InvalidOperation:
        raise UsageError(f"{text!r} is not a number of hours", "write it as 20 or 1.5") from None
    if not hours.is_finite() or not 0 <= hours < 1_000_000:
        raise UsageError(f"a number of hours lies between 0 and 1000000, not {text!r}")
    return int(hours * 3600)


def usd_micro(amount: str | float) -> int:
    """Dollars as integer micro-dollars, rounded up, so that no cost is ever understated."""
    from decimal import ROUND_CEILING, Decimal, InvalidOperation

    try:
        micro = (Decimal(str(amount)) * MICRO).to_integral_value(rounding=ROUND_CEILING)
    except (InvalidOperation, OverflowError, ValueError):
        raise UsageError(f"{amount!r} is not an amount of dollars", "write it as 12.50") from None
    if not micro.is_finite() or not 0 <= micro < 10**15:
        raise UsageError(f"an amount of dollars lies between 0 and a billion, not {amount!r}")
    return int(micro)


def cost_usd_micro(rate_usd_micro_per_hour: int, duration_s: int) -> int:
    """What `duration_s` costs at an hourly rate, rounded up."""
    return -(-rate_usd_micro_per_hour * duration_s // 3600)


def to_usd(micro: int) -> float:
    return micro / MICRO


def format_usd(micro: int) -> str:
    """``$1.50``; four decimals where two would hide a cost."""
    return f"${micro / MICRO:,.2f}" if micro % 10_000 == 0 else f"${micro / MICRO:,.4f}"


def format_duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s``, ``45 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_local(time_s: float) -> str:
    """A Unix time in this machine's own zone, with the zone's name: ``Sat 28 Nov, 01:00 CET``."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_s, UTC).astimezone().strftime("%a %d %b, %H:%M %Z")


def format_bytes(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"

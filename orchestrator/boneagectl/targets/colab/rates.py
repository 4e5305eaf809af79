"""What a GPU costs on Colab: compute units an hour, and what a unit costs. Google publishes no list."""

from __future__ import annotations

from boneagectl import units
from boneagectl.errors import UsageError

UNITS_PER_HOUR = {"T4": 1.76, "L4": 1.71, "A100": 5.40}
"""The highest that users reported; what is really asked is looked at once a machine is there, before it trains."""
UNIT_USD_MICRO = 99_900
"""100 units for $9.99: colab.research.google.com/signup."""
SOURCE = "users' reports of units an hour, and 100 units for $9.99 at colab.research.google.com/signup"
DATE = "2026-11-20"


def units_per_hour(gpu: str) -> float:
    """Raises UsageError for a GPU that is not in the table: Colab's own program would take another one, unheard."""
    if gpu not in UNITS_PER_HOUR:
        raise UsageError(f"targets.colab.gpu is one of {', '.join(UNITS_PER_HOUR)}, not {gpu!r}")
    return UNITS_PER_HOUR[gpu]


def usd_micro_per_hour(rate_units: float) -> int:
    return units.usd_micro(rate_units * UNIT_USD_MICRO / units.MICRO)

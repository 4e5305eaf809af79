"""The plan made from a calibration, against what the training then took: recorded runs, replayed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def off_percent() -> dict[str, float]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import forecast

        found: dict[str, float] = forecast.replay()
    print("".join(f"\n{name}: {percent:+.1f} %" for name, percent in found.items()), file=sys.stderr)
    return found


def test_each_recorded_training_took_what_its_plan_said_within_15_percent(off_percent: dict[str, float]) -> None:
    assert len(off_percent) >= 5
    assert {name: percent for name, percent in off_percent.items() if abs(percent) > 15} == {}


def test_plans_do_not_all_err_to_one_side(off_percent: dict[str, float]) -> None:
    """What is left out of every plan, as the compilation of a second kind of epoch once was, shows in all of them."""
    assert min(off_percent.values()) < 0 < max(off_percent.values())

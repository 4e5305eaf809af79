"""What the burn-down figures draw is what the ledger's accounts say, to the micro-dollar and the second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from boneagectl.ledger import burndown
from boneagectl.ledger.accounts import Account, Entry
from boneagectl.ledger.store import Ledger, opened
from boneagectl.models import Handle, LegState, Observation, format_iso
from support import make_plan

HOUR_S, DAY_S, WEEK_S = 3600, 86_400, 7 * 86_400
SATURDAY_S = 172_800 + 3000 * WEEK_S
USD = 1_000_000


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clock of the ledger, a Tuesday noon; a test turns it."""
    clock = [SATURDAY_S + 3 * DAY_S + 12 * HOUR_S]
    monkeypatch.setattr("boneagectl.ledger.store._now_s", lambda: clock[0])
    return clock


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path / "ledger.db") as ledger:
        yield ledger


@pytest.fixture
def train(ledger: Ledger, now: list[int]) -> Callable[..., None]:
    """Books a leg on a target, lets the time go by, and settles it unless it is to stay open."""

    def train(name: str, target: str, usd_micro: int, spent_s: int, is_open: bool = False) -> None:
        plan = make_plan(name, worst_s=2 * spent_s, worst_usd_micro=2 * usd_micro)
        plan = replace(plan, quote=replace(plan.quote, target=target))
        ledger.reserve(plan, "0" * 64)
        ledger.attach(plan.leg_id, Handle(target, name))
        now[0] += spent_s
        if not is_open:
            ledger.observe(plan.leg_id, Observation(LegState.COMPLETE, "", 3, 3, spent_s, usd_micro))

    return train


def drawn(ledger: Ledger, name: str, now_s: int) -> list[dict[str, Any]]:
    own = [line for line in ledger.entries() if line.account == name]
    by_day = burndown.expand_daily_charges(own, partial(ledger.spent_usd_micro, name), now_s)
    return burndown.limit_series(ledger.account(name), by_day, now_s)


def micro(value: float) -> int:
    return round(value * USD)


# ----------------------------------------------------------------------------------- dollars
@pytest.mark.parametrize("seed", range(5))
def test_the_line_goes_from_the_cap_to_what_budget_calls_free(
    ledger: Ledger, now: list[int], train: Callable[..., None], seed: int
) -> None:
    """Whatever happened: legs, things that stand, dearer and gone, corrections, at any hour; and a leg that is open."""
    chance = Random(seed)  # noqa: S311
    ledger.set_cap("azure", 300 * USD, None)
    for at in range(12):
        now[0] += chance.randrange(4 * DAY_S)
        happens = chance.choice(("a leg", "stands", "falls", "corrected"))
        if happens == "a leg":
            train(f"run-{at}", "azure", chance.randrange(9 * USD), HOUR_S)
        elif happens == "stands":
            ledger.start_charge("azure", chance.choice("ab"), chance.randrange(USD))
        elif happens == "corrected":
            ledger.adjust("azure", chance.randrange(USD), 0, now[0] - DAY_S, "by the bill")
        else:
            ledger.stop_charge("azure", chance.choice("ab"))
    train("open-run", "azure", 7 * USD + 1, HOUR_S, is_open=True)
    account, (one,) = ledger.account("azure"), drawn(ledger, "azure", now[0])
    values = [left for _, left in one["points"]]
    assert micro(values[0]) == micro(one["limit"]) == 300 * USD, "the lines add up to the account"
    assert micro(values[-1]) == 300 * USD - account.spent_usd_micro
    assert micro(one["free"]) == micro(values[-1]) - micro(one["reserved"]) == account.free_usd_micro
    assert micro(one["reserved"]) == account.reserved_usd_micro == 14 * USD + 2
    assert values == sorted(values, reverse=True)
    times_s = [at_s for at_s, _ in one["points"]]
    assert times_s == sorted(times_s)
    assert times_s[-1] == one["as_of_s"] == now[0]


def test_what_stands_falls_a_step_a_day(ledger: Ledger, now: list[int]) -> None:
    begun_s = now[0]
    ledger.set_cap("azure", 10 * USD, None)
    ledger.start_charge("azure", "a registry", USD // 5)
    now[0] += 3 * DAY_S + 60
    ledger.stop_charge("azure", "a registry")
    now[0] += 5 * DAY_S
    (one,) = drawn(ledger, "azure", now[0])
    steps = [(begun_s + day * DAY_S, 10 - 0.2 * (day + 1)) for day in range(4)]
    assert one["points"] == [[begun_s, 10.0], *([at_s, pytest.approx(left)] for at_s, left in steps), [now[0], 9.2]]


def test_it_runs_out_when_budget_says(ledger: Ledger, now: list[int], train: Callable[..., None]) -> None:
    ledger.set_cap("azure", 100 * USD, None)
    train("early-run", "azure", 20 * USD, HOUR_S)
    now[0] += 9 * DAY_S
    assert drawn(ledger, "azure", now[0])[0]["runs_out_s"] is None
    train("late-run", "azure", 10 * USD, HOUR_S)
    (one,), lasts_days = drawn(ledger, "azure", now[0]), ledger.account("azure").lasts_days
    assert one["week"] == 10.0
    assert one["runs_out_s"] == now[0] + (lasts_days or 0) * DAY_S == now[0] + 49 * DAY_S


def test_a_credit_below_the_cap_is_what_counts(ledger: Ledger, now: list[int], train: Callable[..., None]) -> None:
    ledger.set_cap("azure", 100 * USD, None)
    train("before-run", "azure", 5 * USD, HOUR_S)
    now[0] += DAY_S
    ledger.set_credit("azure", 40 * USD, now[0] + 30 * DAY_S)
    now[0] += DAY_S
    train("after-run", "azure", 3 * USD, HOUR_S)
    (one,) = drawn(ledger, "azure", now[0])
    assert (one["kind"], one["points"][-1][1], one["free"]) == ("credit", 37.0, 37.0)
    assert format_iso(one["ends_s"]) == ledger.account("azure").credit_ends
    ledger.set_cap("azure", 40 * USD, None)
    assert (drawn(ledger, "azure", now[0])[0]["kind"], drawn(ledger, "azure", now[0])[0]["free"]) == ("cap", 32.0)


def test_a_cap_that_was_lowered_leaves_nothing_not_less(
    ledger: Ledger, now: list[int], train: Callable[..., None]
) -> None:
    train("first-run", "azure", 20 * USD, HOUR_S)
    train("open-run", "azure", 5 * USD, HOUR_S, is_open=True)
    for cap, left in ((25, 5.0), (10, 0.0)):
        ledger.set_cap("azure", cap * USD, None)
        (one,) = drawn(ledger, "azure", now[0])
        assert (one["points"][-1][1], one["reserved"], one["free"]) == (left, left, 0.0)
        assert ledger.account("azure").free_usd_micro == 0


def test_any_kind_of_line_but_a_booking_changes_what_was_spent(now: list[int]) -> None:
    """Also one that nobody has thought of yet, and one that gives something back."""
    kinds = {"reserved": 9, "returned": -9, "spent": 4, "a new kind": 3, "another": -2}
    lines = [Entry(format_iso(now[0] + at), "azure", "", "", kind, usd * USD, 0, "")
             for at, (kind, usd) in enumerate(kinds.items())]  # fmt: skip
    account = Account("azure", 20 * USD, None, 5 * USD, 0, 0, 0)
    (one,) = burndown.limit_series(account, lines, now[0] + 60)
    assert [left for _, left in one["points"]] == [20.0, 16.0, 13.0, 15.0, 15.0]


@pytest.mark.parametrize("account", [
    Account("azure", 20 * USD, 3600, 0, 0, 0, 0), Account("azure", None, None, USD, 60, USD, 60),
])  # fmt: skip
def test_without_a_limit_or_without_use_there_is_nothing(account: Account) -> None:
    assert burndown.limit_series(account, [], SATURDAY_S) == []


# ------------------------------------------------------------------------------------- hours
def test_of_hours_that_come_back_only_this_week_counts(
    ledger: Ledger, now: list[int], train: Callable[..., None]
) -> None:
    train("old-run", "kaggle", 0, 6 * HOUR_S)
    now[0] += 5 * DAY_S  # over the refresh
    train("new-run", "kaggle", 0, 4 * HOUR_S)
    train("open-run", "kaggle", 0, 2 * HOUR_S, is_open=True)
    account, (one,) = ledger.account("kaggle"), drawn(ledger, "kaggle", now[0])
    assert (one["kind"], one["unit"], one["limit"]) == ("quota", "h", 30.0)
    assert one["points"][0] == [SATURDAY_S + WEEK_S, 30.0]
    assert format_iso(one["ends_s"]) == account.refresh == format_iso(SATURDAY_S + 2 * WEEK_S)
    assert [left for _, left in one["points"]] == [30.0, 26.0, 26.0]
    assert one["free"] * HOUR_S == 30 * HOUR_S - account.spent_s - account.reserved_s == 22 * HOUR_S
    assert one["week"] == 10.0, "the old run is of the last seven days too"


def test_hours_under_a_cap_never_come_back(ledger: Ledger, now: list[int], train: Callable[..., None]) -> None:
    ledger.set_cap("local", None, 50 * HOUR_S)
    train("old-run", "local", 0, 6 * HOUR_S)
    now[0] += 20 * DAY_S
    (one,) = drawn(ledger, "local", now[0])
    assert (one["kind"], one["limit"], one["free"], one["ends_s"]) == ("cap", 50.0, 44.0, None)
    ledger.set_cap("local", USD, 50 * HOUR_S)
    assert [found["unit"] for found in drawn(ledger, "local", now[0])] == ["h"], "no dollar was spent"

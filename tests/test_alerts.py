"""What one observation requires: a pure function, so every limit is tested without waiting for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from boneagectl import alerts
from boneagectl.alerts import HARD_AFTER_S, SOFT_AFTER_S, ActionKind, StallRule
from boneagectl.ledger.accounts import Account
from boneagectl.models import Capabilities, Leg, LegState, Observation, format_iso

NOW_S, HOUR_S = 1_800_000_000, 3600
CAN = Capabilities(unattended=True, can_stop=True, billed=True, max_session_hours=None, live_metrics=True,
                   needs_network=True)  # fmt: skip
DELETES = replace(CAN, stop_keeps=False)
LEG = Leg("run-01", "run", 1, "azure", LegState.RUNNING, "", "azure:run-01", 3, 10, 600, HOUR_S, 1_000_000, None, "")
RUNNING = Observation(LegState.RUNNING, "", 3, 10, 600, 100_000, {"epoch": 3, "epoch_s": 60.0})
ACCOUNT = Account("azure", 10_000_000, None, 0, 0, 0, 0, alert_at=(50, 80))
RULES = StallRule(5.0, 60, stops=False)


def due(seen: Observation = RUNNING, account: Account = ACCOUNT, can: Capabilities = CAN,
        at_s: tuple[tuple[int, int], ...] = (), rules: StallRule = RULES) -> list[alerts.Action]:  # fmt: skip
    return list(alerts.check_rules(LEG, seen, account, can, at_s, rules, NOW_S))


def spent(usd: float, running: float = 0.0, **more: Any) -> Account:
    return replace(ACCOUNT, spent_usd_micro=round(1e6 * usd), running_usd_micro=round(1e6 * running), **more)


# ---------------------------------------------------------------------------------------- shares
@pytest.mark.parametrize(
    ("usd", "running", "share"),
    [(4.9, 0.0, None), (5.0, 0.0, 50), (4.9, 0.2, 50), (7.9, 0.0, 50), (8.0, 0.0, 80), (9.9, 0.2, 100)],
)
def test_the_highest_share_that_was_reached_is_told(usd: float, running: float, share: int | None) -> None:
    acts = due(account=spent(usd, running))
    assert [act.key for act in acts] == ([f"azure cap 10000000 {share}"] if share else [])
    assert all(act.kind is ActionKind.NOTIFY for act in acts)


def test_another_cap_is_told_anew_and_so_are_hours_that_came_back() -> None:
    def keys(**changed: Any) -> set[str]:
        return {act.key for act in due(account=spent(6, **changed))}

    assert keys() != keys(cap_usd_micro=11_000_000)
    hours = {"cap_usd_micro": None, "cap_s": HOUR_S, "spent_s": HOUR_S // 2}
    assert keys(**hours, refresh="2026-11-28T00:00:00Z") != keys(**hours, refresh="2026-12-05T00:00:00Z")


def test_a_credit_is_a_limit_beside_the_cap() -> None:
    """Twelve dollars were told, five are left, and one is being used."""
    account = spent(1, 1.0, credit_usd_micro=5_000_000, credit_told_usd_micro=12_000_000)
    assert [act.text for act in due(account=account)] == ["account azure: $8.00 of the $12.00 credit used"]


@pytest.mark.parametrize(("days", "is_told"), [(6.9, True), (7.1, False), (-1, False)])
def test_a_credit_about_to_end_is_told(days: float, is_told: bool) -> None:
    acts = due(account=replace(ACCOUNT, credit_ends=format_iso(NOW_S + days * 86_400)))
    assert [act.key.split()[1] for act in acts] == ["credit"] * is_told


# ------------------------------------------------------------------------------------------ time
@pytest.mark.parametrize(
    ("over_s", "can", "kind"),
    [
        (SOFT_AFTER_S - 1, CAN, None),
        (SOFT_AFTER_S, CAN, ActionKind.STOP),
        (SOFT_AFTER_S, DELETES, ActionKind.NOTIFY),
        (HARD_AFTER_S, DELETES, ActionKind.STOP),
        (HARD_AFTER_S, replace(CAN, can_stop=False), None),
    ],
)
def test_a_leg_beyond_its_limit_is_asked_first_where_asking_keeps_it(
    over_s: int, can: Capabilities, kind: ActionKind | None
) -> None:
    acts = due(replace(RUNNING, elapsed_s=HOUR_S + over_s), can=can)
    assert [act.kind for act in acts] == ([kind] if kind else [])


def test_one_that_is_over_is_never_stopped() -> None:
    (act,) = due(Observation(LegState.PAUSED, "time_limit", 3, 10, 2 * HOUR_S))
    assert (act.kind, act.text) == (ActionKind.NOTIFY, "run-01 on azure is paused (time_limit), epoch 3/10")


# ------------------------------------------------------------------------------------------ room
BOOKED = {"reserved_usd_micro": 1_000_000}


def test_an_account_that_stops_does_so_while_there_is_room_for_saving() -> None:
    """A dollar an hour: saving may take a quarter of one."""
    full = {**BOOKED, "at_cap": "stop"}
    assert [act.kind for act in due(account=spent(9.7, **full))] == [ActionKind.NOTIFY]
    assert [act.kind for act in due(account=spent(9.75, **full))] == [ActionKind.NOTIFY, ActionKind.STOP]
    assert [act.kind for act in due(account=spent(9.75, **BOOKED))] == [ActionKind.NOTIFY], "by default it only refuses"
    assert [act.kind for act in due(account=spent(9.75, **full), can=DELETES)] == [ActionKind.NOTIFY], (
        "it saves nothing"
    )
    assert due(account=spent(10, **full), can=DELETES)[-1].kind is ActionKind.STOP


def test_what_fits_with_all_that_is_booked_is_left_to_the_remote_limit() -> None:
    assert all(
        act.kind is ActionKind.NOTIFY for act in due(account=spent(9.9, reserved_usd_micro=100_000, at_cap="stop"))
    )


# ----------------------------------------------------------------------------------------- stall
def test_no_new_epoch_for_a_multiple_of_the_usual_time_is_a_stall() -> None:
    def acts(quiet_s: int, rules: StallRule = RULES) -> list[alerts.Action]:
        at_s = ((0, NOW_S - quiet_s - 180), (1, NOW_S - quiet_s - 120), (3, NOW_S - quiet_s))
        return due(at_s=at_s, rules=rules)

    assert acts(299) == []
    (act,) = acts(300)
    assert (act.key, act.kind) == ("run-01 stalled 3", ActionKind.NOTIFY)
    assert acts(300, StallRule(5.0, 400, stops=False)) == [], "never before the least time"
    assert acts(300, StallRule(5.0, 60, stops=True))[0].kind is ActionKind.STOP


def test_before_the_first_epoch_there_is_half_an_hour() -> None:
    fresh = Observation(LegState.RUNNING, "starting", 0, 10, 600)
    assert due(fresh, at_s=((0, NOW_S - 1799),)) == []
    assert due(fresh, at_s=((0, NOW_S - 1800),))[0].key == "run-01 stalled 0"


def test_where_epochs_are_not_shown_live_or_it_waits_in_a_queue_nothing_stalls() -> None:
    at_s = ((3, NOW_S - 10_000),)
    assert due(at_s=at_s)
    assert due(at_s=at_s, can=replace(CAN, live_metrics=False)) == []
    assert due(replace(RUNNING, state=LegState.QUEUED), at_s=at_s) == []

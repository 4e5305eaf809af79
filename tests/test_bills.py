"""Our own count against a provider's: what is booked for the difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from boneagectl import bills
from boneagectl.ledger.accounts import Account
from boneagectl.ledger.store import opened
from boneagectl.models import Handle, LegState, Observation, Quota
from emulators.kaggle import Kaggle
from support import KAGGLE_PACK, Cli, make_plan

HOUR_S = 3600


@pytest.mark.parametrize(
    ("theirs", "ours", "reserved", "surely_told", "booked"),
    [
        (12, 10, 0, 10, 2),
        (12, 10, 0, 0, 2),
        (12, 10, 5, 10, 0),  # it may be of what runs
        (12, 10, 1, 10, 1),
        (10, 10, 0, 10, 0),
        (8, 10, 0, 10, -2),
        (8, 10, 0, 8, 0),  # the rest is of today
        (8, 10, 5, 9, -1),
        (0, 10, 0, 0, 0),
    ],
)
def test_more_is_booked_at_once_and_less_as_far_as_the_bill_must_know(
    theirs: int, ours: int, reserved: int, surely_told: int, booked: int
) -> None:
    assert bills.money_difference(theirs, ours, reserved, surely_told) == booked


@pytest.mark.parametrize(
    ("used_s", "runs_there_s", "ours_s", "booked_here_s", "booked_s"),
    [
        (500, 0, 300, 0, 200),
        (300, 200, 300, 0, 200),
        (300, 0, 500, 0, -200),
        (300, 0, 300, 200, 0),
        (300, 100, 500, 0, 0),
    ],
)
def test_hours_are_given_back_only_while_nothing_runs(
    used_s: int, runs_there_s: int, ours_s: int, booked_here_s: int, booked_s: int
) -> None:
    account = Account("kaggle", None, None, 0, ours_s, 0, booked_here_s)
    assert bills.hours_difference(Quota(used_s, runs_there_s, 30 * HOUR_S, 0), account) == booked_s


def test_hours_that_run_without_us_are_booked_and_explained(kaggle: Kaggle, project: Path, cli: Cli) -> None:
    (project / "boneage.toml").write_text(
        f'targets.kaggle.dataset = "{KAGGLE_PACK}"\ntargets.kaggle.username = "alice"\n'
    )
    kaggle.quota_used_s = 4 * HOUR_S
    (line,) = cli("budget", "reconcile", "--json").json["accounts"]
    assert (line["account"], line["theirs_s"], line["booked_s"]) == ("kaggle", 4 * HOUR_S, 4 * HOUR_S)
    account = next(one for one in cli("budget", "--json").json["accounts"] if one["name"] == "kaggle")
    assert account["spent_s"] == 4 * HOUR_S
    said = cli("budget", "reconcile")
    assert "4.00 h" in said.out
    (entry, *_) = cli("budget", "export", "--format", "json", "--account", "kaggle").json["entries"]
    assert (entry["kind"], entry["seconds"]) == ("reconciled", 4 * HOUR_S)


def test_without_a_provider_to_ask_nothing_is_added(project: Path, cli: Cli) -> None:
    assert "no provider has a count" in cli("budget", "reconcile").out


# ------------------------------------------------------------------------------------ what accounts say
def test_what_runs_what_was_settled_and_what_a_bill_confirmed_are_told_apart(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.db") as ledger:
        for number, run in enumerate(("one", "two")):
            ledger.reserve(make_plan(f"run-{run}", worst_usd_micro=1000), "0" * 64)
            ledger.attach(f"run-{run}-01", Handle("local", run))
            state = LegState.RUNNING if number else LegState.COMPLETE
            ledger.observe(f"run-{run}-01", Observation(state, "", 1, 2, 60, 400 + number))
        account = ledger.account("local")
        assert (account.spent_usd_micro, account.running_usd_micro, account.running_s) == (400, 401, 60)
        assert (account.reconciled_usd_micro, account.typical_run_usd_micro) == (0, 400)
        ledger.adjust("local", 50, 0, 4_000_000_000, "a bill")
        account = ledger.account("local")
        assert (account.spent_usd_micro, account.reconciled_usd_micro) == (450, 450)


def test_how_many_runs_like_those_of_late_fit() -> None:
    account = Account("azure", 1000, None, 100, 0, 100, 0, typical_run_usd_micro=300)
    assert account.lasts_runs == 2
    assert Account("azure", None, None, 100, 0, 0, 0, typical_run_usd_micro=300).lasts_runs is None
    assert Account("kaggle", 1000, 7200, 0, 0, 0, 0, typical_run_s=1000, typical_run_usd_micro=10).lasts_runs == 7

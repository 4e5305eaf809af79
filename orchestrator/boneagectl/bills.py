"""Our own count against the provider's: what differs is booked as a line of its own, and can be explained.

What the provider counts more is booked at once: somebody pays for it. What it counts less is only given back where
the provider must know everything by now, for bills come late.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boneagectl.models import Account, Bill, Quota, format_iso

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Both counts of one account since `since`, in money or in hours, and what was booked for the difference.

    `until` is the time up to which the provider has surely told everything.
    """

    account: str
    since: str
    until: str
    ours_usd_micro: int
    theirs_usd_micro: int
    booked_usd_micro: int
    ours_s: int
    theirs_s: int
    booked_s: int


def money_difference(theirs: int, ours: int, ours_reserved: int, ours_surely_told: int) -> int:
    """What to add to our count, in micro-dollars: `ours` up to now, of which a part is surely in the bill.

    What legs at work have used is in the bill and not yet in our count: only what is beyond all they may is more.
    """
    return max(0, theirs - ours - ours_reserved) + min(0, theirs - ours_surely_told)


def hours_difference(quota: Quota, account: Account) -> int:
    """What to add to our count, in seconds; less only while nothing runs, for what runs is counted differently."""
    difference_s = quota.used_s + quota.reserved_s - account.spent_s - account.reserved_s
    runs = account.reserved_s or quota.reserved_s
    return difference_s if difference_s > 0 or not runs else 0


def reconcile(flow: Workflow) -> tuple[list[Reconciliation], dict[str, str]]:
    """Asks every provider that counts; returns the accounts compared, and why one could not be asked."""
    counts = flow.provider_counts()
    found = [_money(flow, name, bill) for name, bill in counts.bills.items()]
    found += [_hours(flow, name, quota) for name, quota in counts.quotas.items()]
    return found, counts.troubles


def _money(flow: Workflow, name: str, bill: Bill) -> Reconciliation:
    until_s = max(bill.since_s, int(time.time()) - bill.late_s)
    ours, reserved = flow.ledger.spent_usd_micro(name, bill.since_s), flow.ledger.account(name).reserved_usd_micro
    told = flow.ledger.spent_usd_micro(name, bill.since_s, until_s)
    booked = money_difference(bill.usd_micro, ours, reserved, told)
    note = f"the bill since {format_iso(bill.since_s)[:10]} against our count"
    flow.ledger.correct(name, booked, 0, until_s, note)
    return Reconciliation(name, format_iso(bill.since_s), format_iso(until_s), ours, bill.usd_micro, booked, 0, 0, 0)


def _hours(flow: Workflow, name: str, quota: Quota) -> Reconciliation:
    account, now_s = flow.ledger.account(name), int(time.time())
    booked_s = hours_difference(quota, account)
    flow.ledger.correct(name, 0, booked_s, now_s, "the provider's count of the hours against ours")
    ours_s, theirs_s = account.spent_s + account.reserved_s, quota.used_s + quota.reserved_s
    return Reconciliation(
        name, format_iso(quota.refresh_s - _WEEK_S), format_iso(now_s), 0, 0, 0, ours_s, theirs_s, booked_s
    )

"""Our own count against the providers': each difference becomes a ledger line of its own, shown by `budget explain`.

What a provider counts more is added at once, because it is paid for. What it counts less is returned only where its
count must be complete by now, because bills arrive late.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boneagectl.errors import BoneagectlError
from boneagectl.ledger.accounts import WEEK_S, Account
from boneagectl.models import Bill, Quota, format_iso
from boneagectl.targets import NAMES

if TYPE_CHECKING:
    from boneagectl.runs import Workflow


@dataclass(frozen=True, slots=True)
class ProviderCounts:
    """By target: the hours and the money as the provider counts them, and why one could not be asked."""

    quotas: dict[str, Quota]
    bills: dict[str, Bill]
    errors: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Both counts of one account since `since`, in money or in hours, and what was added for the difference.

    `until` is the time up to which the provider's count is certainly complete.
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


def ask_providers(flow: Workflow) -> ProviderCounts:
    """Each provider's own counts. Quotas are recorded in the ledger; of money nothing is changed."""
    counts = ProviderCounts({}, {}, {})
    for name in NAMES:
        try:
            target, account = flow.target(name), flow.ledger.account(name)
            if quota := target.quota():
                counts.quotas[name] = quota
                flow.ledger.set_quota(name, quota)
            is_used = target.capabilities.billed and account.spent_usd_micro + account.reserved_usd_micro
            if is_used and (bill := target.bill()):
                counts.bills[name] = bill
        except BoneagectlError as error:
            counts.errors[name] = error.message
    return counts


def money_difference(theirs: int, ours: int, ours_reserved: int, ours_confirmed: int) -> int:
    """What to add to our count, in micro-dollars. `ours_confirmed` is the part of `ours` that the bill must contain.

    The bill contains what running legs have used, our count does not yet: only what is beyond all their reservations
    is more.
    """
    return max(0, theirs - ours - ours_reserved) + min(0, theirs - ours_confirmed)


def hours_difference(quota: Quota, account: Account) -> int:
    """What to add to our count, in seconds; less only while nothing runs, because running legs count differently."""
    difference_s = quota.used_s + quota.reserved_s - account.spent_s - account.reserved_s
    is_running = account.reserved_s or quota.reserved_s
    return difference_s if difference_s > 0 or not is_running else 0


def reconcile(flow: Workflow) -> tuple[list[Reconciliation], dict[str, str]]:
    """Asks every provider; returns the accounts compared, and why a provider could not be asked."""
    counts = ask_providers(flow)
    accounts = [_reconcile_money(flow, name, bill) for name, bill in counts.bills.items()]
    accounts += [_reconcile_hours(flow, name, quota) for name, quota in counts.quotas.items()]
    return accounts, counts.errors


def _reconcile_money(flow: Workflow, name: str, bill: Bill) -> Reconciliation:
    until_s = max(bill.since_s, int(time.time()) - bill.late_s)
    ours, reserved = flow.ledger.spent_usd_micro(name, bill.since_s), flow.ledger.account(name).reserved_usd_micro
    confirmed = flow.ledger.spent_usd_micro(name, bill.since_s, until_s)
    added = money_difference(bill.usd_micro, ours, reserved, confirmed)
    note = f"the bill since {format_iso(bill.since_s)[:10]} against our count"
    flow.ledger.adjust(name, added, 0, until_s, note)
    since, until = format_iso(bill.since_s), format_iso(until_s)
    return Reconciliation(name, since, until, ours, bill.usd_micro, added, 0, 0, 0)


def _reconcile_hours(flow: Workflow, name: str, quota: Quota) -> Reconciliation:
    account, now_s = flow.ledger.account(name), int(time.time())
    added_s = hours_difference(quota, account)
    flow.ledger.adjust(name, 0, added_s, now_s, "the provider's count of the hours against ours")
    ours_s, theirs_s = account.spent_s + account.reserved_s, quota.used_s + quota.reserved_s
    since = format_iso(quota.refresh_s - WEEK_S)
    return Reconciliation(name, since, format_iso(now_s), 0, 0, 0, ours_s, theirs_s, added_s)

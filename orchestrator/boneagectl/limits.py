"""What forbids a plan before it costs anything. The ledger checks its caps once more when it books."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from boneagectl import accounts, units
from boneagectl.records import Account, Capabilities, Quota, Quote, Verdict

MIN_FREE_BYTES = 500_000_000


def verdicts(quote: Quote, account: Account, capabilities: Capabilities, folder: Path) -> tuple[Verdict, ...]:
    """One verdict for each limit that applies, refusals among them."""
    return (*_caps(quote, account), *_session(quote, capabilities), disk(folder))


def refusals(quote: Quote, account: Account, capabilities: Capabilities) -> Iterator[str]:
    """In words, what forbids a leg because of how long it may take."""
    yield from accounts.refusals(account, quote.worst_usd_micro, quote.worst_s, int(time.time()))
    yield from (verdict.detail for verdict in _session(quote, capabilities) if not verdict.allows)


def _caps(quote: Quote, account: Account) -> Iterator[Verdict]:
    refused = list(accounts.refusals(account, quote.worst_usd_micro, quote.worst_s, int(time.time())))
    yield from (Verdict("cap", False, refusal) for refusal in refused)
    if not refused:
        yield Verdict(
            "cap", True, f"account {account.name}: fits" if _has_cap(account) else f"account {account.name}: no cap set"
        )


def _has_cap(account: Account) -> bool:
    return account.free_usd_micro is not None or account.limit_s is not None


def quota_verdict(quota: Quota, quote: Quote) -> Verdict:
    """Whether the provider, by its own count, has the hours that a leg may take."""
    free, allowed = units.format_duration(quota.free_s), units.format_duration(quota.allowed_s)
    back = f"the full quota is back {units.format_local(quota.refresh_s)}"
    detail = f"{free} of {allowed} free by {quote.target}'s own count; {back}"
    if quote.worst_s <= quota.free_s:
        return Verdict("quota", True, detail)
    return Verdict("quota", False, f"this may take {units.format_duration(quote.worst_s)}, {detail}")


def _session(quote: Quote, capabilities: Capabilities) -> Iterator[Verdict]:
    if capabilities.max_session_hours is None:
        return
    allowed = quote.worst_s <= capabilities.max_session_hours * 3600
    yield Verdict("session", allowed, f"a session there lasts {capabilities.max_session_hours:g} h at most")


def disk(folder: Path) -> Verdict:
    """Whether there is room here for what a run brings back."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{units.format_bytes(free)} free, {units.format_bytes(MIN_FREE_BYTES)} wanted in {folder}"
    return Verdict("disk", free >= MIN_FREE_BYTES, detail)

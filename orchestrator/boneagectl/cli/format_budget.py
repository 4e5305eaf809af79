"""How accounts and ledger lines are printed."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from boneagectl import units
from boneagectl.ledger.accounts import Account, Entry
from boneagectl.models import Quota, as_json, format_iso, parse_iso
from boneagectl.output import table

if TYPE_CHECKING:
    from boneagectl.bills import Reconciliation

_SESSION_S = 12 * 3600
"""The longest session of a target with a quota."""


def accounts_text(accounts: Sequence[Account]) -> str:
    """A table, and below it what it has no room for: how certain the amounts are, and how long the rest lasts."""
    headings = ("ACCOUNT", "SPENT", "RESERVED", "CAP", "FREE", "HOURS SPENT", "RESERVED", "LIMIT", "FREE")
    rows = []
    for account in accounts:
        usd = (account.spent_usd_micro, account.reserved_usd_micro, account.cap_usd_micro, account.free_usd_micro)
        hours = (account.spent_s, account.reserved_s, account.limit_s, account.free_s)
        cells = ["none" if value is None else units.format_usd(value) for value in usd]
        cells += ["none" if value is None else f"{value / 3600:.2f}" for value in hours]
        rows.append((account.name, *cells))
    notes = [f"{account.name}: {note}" for account in accounts for note in _notes(account)]
    return "\n".join([table(headings, rows), *notes])


def _notes(account: Account) -> Iterator[str]:
    if account.reconciled_usd_micro or account.running_usd_micro:
        ours = units.format_usd(account.spent_usd_micro - account.reconciled_usd_micro)
        confirmed, running = map(units.format_usd, (account.reconciled_usd_micro, account.running_usd_micro))
        yield f"spent: {confirmed} by the provider's bill, {ours} by our count since"
        yield f"reserved: about {running} of it used so far by running legs"
    if account.credit_usd_micro is not None:
        left = units.format_usd(max(0, account.credit_usd_micro))
        yield f"{left} of the credit left, by the last balance entered and our count since"
    if account.credit_ends:
        yield f"the credit ends on {account.credit_ends[:10]}"
    yield from _lasting(account)
    if account.standing_usd_micro:
        charges = units.format_usd(account.standing_usd_micro)
        yield f"{charges} of it for daily charges; boneagectl infra down ends them"
    if account.at_cap == "stop":
        yield "at its limit, watch stops running legs"


def _lasting(account: Account) -> Iterator[str]:
    if (days := account.lasts_days) is not None:
        end = "more than ten years" if days > 3650 else f"until {format_iso(time.time() + days * 86_400)[:10]}"
        yield f"{units.format_usd(account.week_usd_micro)} in the last seven days; at this rate the rest lasts {end}"
    if (runs := account.lasts_runs) is not None:
        yield f"the rest is enough for {runs} runs like the recent ones"
    if account.quota_s and account.refresh and account.free_s:
        free, refresh = units.format_duration(account.free_s), units.format_local(parse_iso(account.refresh))
        whole, rest_s = divmod(account.free_s, _SESSION_S)
        room = f"{whole} sessions of {_SESSION_S // 3600} h and " if whole else ""
        room += f"one session of {units.format_duration(rest_s)}"
        yield f"{free} of quota left until {refresh}, not carried over; room for {room}"


def quota_text(name: str, quota: Quota, account: Account) -> str:
    """A provider's own count of its quota next to ours."""
    ours_s = account.spent_s + account.reserved_s
    used, reserved, free = (f"{value / 3600:.2f}" for value in (quota.used_s, quota.reserved_s, quota.free_s))
    allowed = f"{quota.allowed_s / 3600:.2f}"
    return (
        f"{name}'s own count: {used} h used, {reserved} reserved, {free} free of a quota of {allowed}\n"
        f"our count: {ours_s / 3600:.2f} h spent and reserved; the rest ran without boneagectl\n"
        f"the quota is refreshed {units.format_local(quota.refresh_s)}"
    )


def reconciliations_text(reconciliations: Sequence[Reconciliation]) -> str:
    if not reconciliations:
        return "no provider has a count to compare yet"
    headings = ("ACCOUNT", "SINCE", "OURS", "THEIRS", "BOOKED", "COMPLETE UNTIL")
    rows = []
    for item in reconciliations:
        if item.ours_s or item.theirs_s:
            counts = [f"{value / 3600:.2f} h" for value in (item.ours_s, item.theirs_s, item.booked_s)]
        else:
            counts = list(map(_signed_usd, (item.ours_usd_micro, item.theirs_usd_micro, item.booked_usd_micro)))
        rows.append((item.account, item.since[:10], *counts, item.until[:16].replace("T", " ")))
    return table(headings, rows)


def _signed_usd(micro: int) -> str:
    return f"-{units.format_usd(-micro)}" if micro < 0 else units.format_usd(micro)


def entries_text(entries: Sequence[Entry]) -> str:
    if not entries:
        return "nothing was ever reserved"
    rows = [(entry.time, entry.account, entry.leg_id or "-", entry.kind, _signed_usd(entry.usd_micro),
             f"{entry.seconds / 3600:+.2f}", entry.note) for entry in entries]  # fmt: skip
    usd, hours = sum(entry.usd_micro for entry in entries), sum(entry.seconds for entry in entries) / 3600
    total = f"total {_signed_usd(usd)} and {hours:.2f} h, spent and reserved"
    return f"{table(('TIME', 'ACCOUNT', 'LEG', 'KIND', 'USD', 'HOURS', 'NOTE'), rows)}\n\n{total}"


def entries_csv(entries: Sequence[Entry]) -> str:
    """With the field names of JSON; a text that a spreadsheet would take for a formula is quoted."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("time", "account", "run_id", "leg_id", "kind", "usd", "seconds", "note"))
    writer.writerows([_quote_formula(value) for value in as_json(entry).values()] for entry in entries)
    return stream.getvalue().rstrip("\n")


def _quote_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value

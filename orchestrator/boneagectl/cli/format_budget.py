"""How accounts and the lines of the ledger look to people."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from boneagectl import units
from boneagectl.models import Account, Entry, Quota, as_json, format_iso, parse_iso
from boneagectl.output import table

if TYPE_CHECKING:
    from boneagectl.bills import Reconciliation

_SESSION_S = 12 * 3600


def accounts_table(accounts: Sequence[Account]) -> str:
    headings = ("ACCOUNT", "SPENT", "RESERVED", "CAP", "FREE", "HOURS SPENT", "RESERVED", "LIMIT", "FREE")
    return table(headings, [(account.name, *_usd_cells(account), *_hour_cells(account)) for account in accounts])


def _usd_cells(account: Account) -> list[str]:
    spent, reserved, cap = account.spent_usd_micro, account.reserved_usd_micro, account.cap_usd_micro
    return [
        "none" if value is None else units.format_usd(value) for value in (spent, reserved, cap, account.free_usd_micro)
    ]


def account_notes(accounts: Sequence[Account]) -> list[str]:
    """What the table has no room for, a line each: what is certain of what was spent, and how long the rest lasts."""
    return [f"{account.name}: {note}" for account in accounts for note in _notes(account)]


def _notes(account: Account) -> Iterator[str]:
    if account.reconciled_usd_micro or account.running_usd_micro:
        counted = units.format_usd(account.spent_usd_micro - account.reconciled_usd_micro)
        confirmed, running = map(units.format_usd, (account.reconciled_usd_micro, account.running_usd_micro))
        yield f"spent: {confirmed} by the provider's bill, {counted} by our count since"
        yield f"reserved: about {running} of it used so far by legs at work"
    if account.credit_usd_micro is not None:
        left = units.format_usd(max(0, account.credit_usd_micro))
        yield f"{left} of the credit left, by the last balance told and our count since"
    if account.credit_ends:
        yield f"the credit ends on {account.credit_ends[:10]}"
    yield from _lasting(account)
    if account.standing_usd_micro:
        standing = units.format_usd(account.standing_usd_micro)
        yield f"{standing} of it for what stands by the day; boneagectl infra down ends it"
    if account.at_cap == "stop":
        yield "at its limit, watch stops what runs"


def _lasting(account: Account) -> Iterator[str]:
    if (days := account.lasts_days) is not None:
        yield f"{units.format_usd(account.week_usd_micro)} in the last seven days, so what is free lasts {_until(days)}"
    if (runs := account.lasts_runs) is not None:
        yield f"what is free is enough for {runs} runs like those of late"
    if account.quota_s and account.refresh and account.free_s:
        free, back = units.format_duration(account.free_s), units.format_local(parse_iso(account.refresh))
        yield f"{free} are free until {back}, and are not carried over; {_fitting(account.free_s)}"


def _hour_cells(account: Account) -> list[str]:
    spent, reserved, cap = account.spent_s, account.reserved_s, account.limit_s
    return ["none" if value is None else f"{value / 3600:.2f}" for value in (spent, reserved, cap, account.free_s)]


def _until(days: float) -> str:
    return "more than ten years" if days > 3650 else f"until {format_iso(time.time() + days * 86_400)[:10]}"


def entries_text(entries: Sequence[Entry]) -> str:
    if not entries:
        return "nothing was ever booked"
    rows = [(one.time, one.account, one.leg_id or "-", one.kind, _signed_usd(one.usd_micro),
             f"{one.seconds / 3600:+.2f}", one.note) for one in entries]  # fmt: skip
    usd, parse_iso = sum(one.usd_micro for one in entries), sum(one.seconds for one in entries)
    total = f"together {_signed_usd(usd)} and {parse_iso / 3600:.2f} h, spent and reserved"
    return f"{table(('TIME', 'ACCOUNT', 'LEG', 'WHAT', 'USD', 'HOURS', 'WHY'), rows)}\n\n{total}"


def reconciled_text(found: Sequence[Reconciliation]) -> str:
    if not found:
        return "no provider that counts has anything to compare yet"
    rows = [_reconciled_row(one) for one in found]
    return table(("ACCOUNT", "SINCE", "OURS", "THEIRS", "BOOKED", "COMPLETE UNTIL"), rows)


def _reconciled_row(one: Reconciliation) -> tuple[object, ...]:
    if one.ours_s or one.theirs_s:
        counts = tuple(f"{value / 3600:.2f} h" for value in (one.ours_s, one.theirs_s, one.booked_s))
    else:
        counts = tuple(map(_signed_usd, (one.ours_usd_micro, one.theirs_usd_micro, one.booked_usd_micro)))
    return (one.account, one.since[:10], *counts, one.until[:16].replace("T", " "))


def _signed_usd(micro: int) -> str:
    return f"-{units.format_usd(-micro)}" if micro < 0 else units.format_usd(micro)


def entries_csv(entries: Sequence[Entry]) -> str:
    """With the field names of JSON; a text that a spreadsheet would take for a formula is quoted."""

    rows = [as_json(entry) for entry in entries]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("time", "account", "run_id", "leg_id", "kind", "usd", "seconds", "note"))
    writer.writerows([_plain(value) for value in row.values()] for row in rows)
    return stream.getvalue().rstrip("\n")


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def quota_text(name: str, quota: Quota, account: Account) -> str:
    """A provider's own count beside ours."""
    ours_s = account.spent_s + account.reserved_s
    used, reserved, free = (f"{one / 3600:.2f}" for one in (quota.used_s, quota.reserved_s, quota.free_s))
    return "\n".join(
        (
            f"{name}'s own count: {used} h used, {reserved} reserved, {free} free of {quota.allowed_s / 3600:.2f}",
            f"our count: {ours_s / 3600:.2f} h spent and reserved; the difference is what runs without boneagectl",
            f"the full quota is back {units.format_local(quota.refresh_s)}",
        )
    )


def _fitting(free_s: int) -> str:
    """How many legs of the session limit, and how long a last one, the free hours hold."""
    whole, rest_s = divmod(free_s, _SESSION_S)
    legs = f"{whole} sessions of {_SESSION_S // 3600} h and one of {units.format_duration(rest_s)}" if whole else \
        f"one session of {units.format_duration(rest_s)}"  # fmt: skip
    return f"{legs} would fit" if free_s else "nothing fits"

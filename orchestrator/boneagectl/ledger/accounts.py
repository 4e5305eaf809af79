"""One account read from the ledger: what it has paid, what is promised, and what it still has room for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace

from boneagectl import units
from boneagectl.models import Account, Entry, format_iso, parse_iso

# One pass over all that an account ever booked. What was settled before :window no longer counts against the hours of a
# quota; the last three are parts of what was spent: since :week, up to :until, and since :told.
_LEGS = """select coalesce(sum(s.usd_micro), 0),
                  coalesce(sum(case when s.created_s >= :window then s.seconds end), 0),
                  coalesce(sum(case when s.leg_id is null then r.usd_micro end), 0),
                  coalesce(sum(case when s.leg_id is null then r.seconds end), 0),
                  coalesce(sum(case when s.created_s >= :week then s.usd_micro end), 0),
                  coalesce(sum(case when s.created_s <= :until then s.usd_micro end), 0),
                  coalesce(sum(case when s.created_s >= :told then s.usd_micro end), 0)
           from reservations r left join settlements s using (leg_id) where r.account = :account"""

_SETTLED = """select coalesce(sum(s.usd_micro), 0) from settlements s join reservations r using (leg_id)
              where r.account = ? and s.created_s >= ? and s.created_s <= ?"""

# By the day, from ?2 to ?3.
_STANDING = """select coalesce(sum(usd_micro_per_day * max(0,
                 (min(coalesce(until_s, ?3), ?3) - max(since_s, ?2) + 86399) / 86400)), 0)
               from standing where account = ?1"""

_CORRECTED = """select coalesce(sum(usd_micro), 0), coalesce(sum(seconds), 0)
                from reconciliations where account = ? and created_s >= ?"""
_CONFIRMED = "select max(until_s) from reconciliations where account = ?"

# The plus has SQLite begin with the few legs at work, not with all that an account ever had.
_RUNNING = """select coalesce(sum(l.usd_micro), 0), coalesce(sum(l.elapsed_s), 0)
              from legs l join reservations r using (leg_id)
              where +r.account = ? and l.state in ('reserved', 'queued', 'running')"""

# What the runs of the last 25 bookings have cost the account, on average.
_TYPICAL = """select coalesce(avg(usd_micro), 0), coalesce(avg(seconds), 0) from (
                select sum(s.usd_micro) as usd_micro, sum(s.seconds) as seconds
                from (select leg_id from reservations where account = ? order by rowid desc limit 25)
                join legs l using (leg_id) join settlements s using (leg_id)
                where l.state != 'released' group by l.run_id)"""

_NEVER_S = 2**60
_WEEK_S = 7 * 86_400


def read_account(db: sqlite3.Connection, name: str, now_s: int) -> Account:
    """The account's limits and usage; one that was never used has neither."""
    row = db.execute("select * from accounts where name = ?", (name,)).fetchone()
    if not row:
        return Account(name, None, None, 0, 0, 0, 0)
    credit = db.execute("select * from credits where account = ?", (name,)).fetchone()
    refresh_s, until_s = _next_refresh_s(row, now_s), db.execute(_CONFIRMED, (name,)).fetchone()[0]
    window_s, week_s = refresh_s - (row["window_s"] or 0), now_s - _WEEK_S
    told_s = credit["told_s"] if credit else _NEVER_S
    times = {"window": window_s, "week": week_s, "until": until_s or 0, "told": told_s}
    legs = db.execute(_LEGS, {"account": name, **times}).fetchone()
    settled, used_s, reserved, reserved_s, of_week, confirmed, since_told = legs
    standing, corrected_s = _standing(db, name, 0, now_s), _corrected(db, name, window_s)[1]
    account = Account(
        name,
        row["cap_usd_micro"],
        row["cap_s"],
        settled + standing + _corrected(db, name, 0)[0],
        max(0, used_s + corrected_s),
        reserved,
        reserved_s,
        quota_s=row["quota_s"],
        refresh=format_iso(refresh_s) if refresh_s else "",
        standing_usd_micro=standing,
        week_usd_micro=of_week + _besides(db, name, week_s, now_s),
        reconciled_usd_micro=0 if until_s is None else confirmed + _besides(db, name, 0, until_s),
        alert_at=tuple(json.loads(row["alert_at"])),
        at_cap=row["at_cap"],
    )
    account = _with_running(db, account)
    return _with_credit(db, account, credit, since_told, now_s) if credit else account


def spent_usd_micro(db: sqlite3.Connection, name: str, since_s: int, until_s: int) -> int:
    """What was paid between two Unix times: for legs that ended then, and by the day for what stands.

    What a provider's count has changed since the first is in it whole, also where it was noted after the second.
    """
    return int(db.execute(_SETTLED, (name, since_s, until_s)).fetchone()[0]) + _besides(db, name, since_s, until_s)


def _besides(db: sqlite3.Connection, name: str, since_s: int, until_s: int) -> int:
    """What was paid and is not of legs, in micro-dollars."""
    return _standing(db, name, since_s, until_s) + _corrected(db, name, since_s)[0]


def _standing(db: sqlite3.Connection, name: str, since_s: int, until_s: int) -> int:
    return int(db.execute(_STANDING, (name, since_s, until_s)).fetchone()[0])


def _corrected(db: sqlite3.Connection, name: str, since_s: int) -> tuple[int, int]:
    """Micro-dollars and seconds that the provider's count has added since a Unix time, or taken."""
    usd_micro, corrected_s = db.execute(_CORRECTED, (name, since_s)).fetchone()
    return usd_micro, corrected_s


def _with_running(db: sqlite3.Connection, account: Account) -> Account:
    """With what legs at work have used, and what a run of late has cost."""
    usd_micro, used_s = db.execute(_RUNNING, (account.name,)).fetchone()
    each_usd_micro, each_s = db.execute(_TYPICAL, (account.name,)).fetchone()
    return replace(account, running_usd_micro=usd_micro, running_s=used_s,
                   typical_run_usd_micro=int(each_usd_micro), typical_run_s=int(each_s))  # fmt: skip


def _with_credit(
    db: sqlite3.Connection, account: Account, row: sqlite3.Row, legs_usd_micro: int, now_s: int
) -> Account:
    """A correction that lowers our count may be of the time before the balance was told: it gives nothing back."""
    told, ends = row["left_usd_micro"], format_iso(row["ends_s"]) if row["ends_s"] else ""
    if told is None:
        return replace(account, credit_ends=ends)
    corrected = max(0, _corrected(db, account.name, row["told_s"])[0])
    left = told - legs_usd_micro - _standing(db, account.name, row["told_s"], now_s) - corrected
    return replace(account, credit_usd_micro=left, credit_told_usd_micro=told, credit_ends=ends)


def _next_refresh_s(row: sqlite3.Row, now_s: int) -> int:
    """When the hours of an account next come back; 0 where they never do."""
    if not row["window_s"]:
        return 0
    return int(row["refresh_s"] + -(-max(0, now_s + 1 - row["refresh_s"]) // row["window_s"]) * row["window_s"])


def refusals(account: Account, worst_usd_micro: int, worst_s: int, now_s: int) -> Iterator[str]:
    """In words, each limit of `account` that the worst case would cross; nothing where it fits."""
    yield from _usd_refusals(account, worst_usd_micro)
    if account.credit_ends and worst_usd_micro and now_s + worst_s > parse_iso(account.credit_ends):
        yield f"account {account.name}: the credit ends on {account.credit_ends[:10]}, before this surely has"
    used_s, limit_s = account.spent_s + account.reserved_s, account.limit_s
    if limit_s is not None and used_s + worst_s > limit_s:
        free = units.format_duration(max(0, limit_s - used_s))
        wanted, limit = units.format_duration(worst_s), units.format_duration(limit_s)
        until = f" until {account.refresh}" if account.refresh else ""
        yield f"account {account.name}: this may take {wanted}, {free} of the {limit} cap is free{until}"


def _usd_refusals(account: Account, worst_usd_micro: int) -> Iterator[str]:
    """A cap counts all that was ever spent, a credit what was spent since its balance was told."""
    wanted = units.format_usd(worst_usd_micro)
    spent, cap, credit = account.spent_usd_micro, account.cap_usd_micro, account.credit_usd_micro
    limits = (("cap", cap, None if cap is None else cap - spent), ("credit", credit, credit))
    for name, of, left in limits:
        if of is None or left is None or worst_usd_micro + account.reserved_usd_micro <= left:
            continue
        free = units.format_usd(max(0, left - account.reserved_usd_micro))
        yield f"account {account.name}: this may cost {wanted}, {free} of the {units.format_usd(of)} {name} is free"


# == entries: The ledger line by line: each booking, each settlement, each thing paid by the day; their sums are the

_LINES = """
  select r.created_s as at_s, r.account, l.run_id, l.leg_id, 'reserved' as kind, r.usd_micro, r.seconds,
         'worst case of ' || l.time_limit_s || ' s on ' || l.target as note
    from reservations r join legs l using (leg_id)
  union all
  select s.created_s, r.account, l.run_id, l.leg_id, 'returned', -r.usd_micro, -r.seconds, 'its booking'
    from settlements s join reservations r using (leg_id) join legs l using (leg_id)
  union all
  select s.created_s, r.account, l.run_id, l.leg_id, 'spent', s.usd_micro, s.seconds, s.basis
    from settlements s join reservations r using (leg_id) join legs l using (leg_id)
  union all
  select since_s, account, '', '', 'standing',
         usd_micro_per_day * max(0, (coalesce(until_s, ?1) - since_s + 86399) / 86400), 0,
         what || ', by the day since ' || strftime('%Y-%m-%d', since_s, 'unixepoch')
    from standing
  union all
  select created_s, account, '', '', 'reconciled', usd_micro, seconds, note from reconciliations"""
_ORDER = {"reserved": 0, "returned": 1, "spent": 2, "standing": 3, "reconciled": 4}


def read_entries(db: sqlite3.Connection, now_s: int) -> list[Entry]:
    """Every line, oldest first. Those of one account add up to what it has spent and reserved."""
    rows = db.execute(_LINES, (now_s,)).fetchall()
    rows.sort(key=lambda row: (row["at_s"], row["leg_id"], _ORDER[row["kind"]]))
    names = ("account", "run_id", "leg_id", "kind", "usd_micro", "seconds", "note")
    return [Entry(format_iso(row["at_s"]), *(row[name] for name in names)) for row in rows]

"""One account read from the ledger: what it has paid, what is promised, and what it still has room for."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace

from boneagectl import units
from boneagectl.records import Account, iso, seconds

# ?2 is the start of the quota's time, or 0: what was settled before it no longer counts against the hours.
_USAGE = """select coalesce(sum(s.usd_micro), 0),
                   coalesce(sum(case when s.created_s >= ?2 then s.seconds end), 0),
                   coalesce(sum(case when s.leg_id is null then r.usd_micro end), 0),
                   coalesce(sum(case when s.leg_id is null then r.seconds end), 0)
            from reservations r left join settlements s using (leg_id) where r.account = ?1"""

# What was spent from ?2 to ?3: by legs, counted whole where they ended then; by the day for what stands; and what a
# provider's own count has added or taken since ?2.
_SPENT = """select (select coalesce(sum(s.usd_micro), 0) from settlements s join reservations r using (leg_id)
                    where r.account = ?1 and s.created_s >= ?2 and s.created_s <= ?3),
                   (select coalesce(sum(usd_micro_per_day * max(0,
                      (min(coalesce(until_s, ?3), ?3) - max(since_s, ?2) + 86399) / 86400)), 0)
                    from standing where account = ?1),
                   (select coalesce(sum(usd_micro), 0) from reconciliations where account = ?1 and created_s >= ?2)"""

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

_CORRECTED_S = "select coalesce(sum(seconds), 0) from reconciliations where account = ? and created_s >= ?"
_CONFIRMED = "select max(until_s) from reconciliations where account = ?"

_WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Spent:
    """Micro-dollars of a time: for legs, by the day for what stands, and by the provider's own count besides."""

    legs_usd_micro: int
    standing_usd_micro: int
    corrected_usd_micro: int

    @property
    def usd_micro(self) -> int:
        return self.legs_usd_micro + self.standing_usd_micro + self.corrected_usd_micro


def read(db: sqlite3.Connection, name: str, now_s: int) -> Account:
    """The account's limits and usage; one that was never used has neither."""
    row = db.execute("select * from accounts where name = ?", (name,)).fetchone()
    if not row:
        return Account(name, None, None, *db.execute(_USAGE, (name, 0)).fetchone())
    refresh_s = _next_refresh_s(row, now_s)
    since_s = refresh_s - (row["window_s"] or 0)
    account = Account(name, row["cap_usd_micro"], row["cap_s"], *db.execute(_USAGE, (name, since_s)).fetchone())
    account = replace(account, quota_s=row["quota_s"], refresh=iso(refresh_s) if refresh_s else "",
                      alert_at=tuple(json.loads(row["alert_at"])), at_cap=row["at_cap"])  # fmt: skip
    return _with_credit(db, _with_running(db, _with_counts(db, account, since_s, now_s)), now_s)


def spent(db: sqlite3.Connection, name: str, since_s: int, until_s: int) -> Spent:
    """What was paid between two Unix times: for legs that ended then, and by the day for what stands.

    What a provider's count has changed since the first is in it whole, also where it was noted after the second.
    """
    return Spent(*db.execute(_SPENT, (name, since_s, until_s)).fetchone())


def _with_counts(db: sqlite3.Connection, account: Account, since_s: int, now_s: int) -> Account:
    """With what stands, what the provider has corrected and confirmed, and the last week's rate."""
    name, ever = account.name, spent(db, account.name, 0, now_s)
    corrected_s = db.execute(_CORRECTED_S, (name, since_s)).fetchone()[0]
    until_s = db.execute(_CONFIRMED, (name,)).fetchone()[0]
    return replace(
        account,
        spent_usd_micro=ever.usd_micro,
        spent_s=max(0, account.spent_s + corrected_s),
        standing_usd_micro=ever.standing_usd_micro,
        week_usd_micro=spent(db, name, now_s - _WEEK_S, now_s).usd_micro,
        reconciled_usd_micro=0 if until_s is None else spent(db, name, 0, until_s).usd_micro,
    )


def _with_running(db: sqlite3.Connection, account: Account) -> Account:
    """With what legs at work have used, and what a run of late has cost."""
    usd_micro, used_s = db.execute(_RUNNING, (account.name,)).fetchone()
    each_usd_micro, each_s = db.execute(_TYPICAL, (account.name,)).fetchone()
    return replace(account, running_usd_micro=usd_micro, running_s=used_s,
                   typical_run_usd_micro=int(each_usd_micro), typical_run_s=int(each_s))  # fmt: skip


def _with_credit(db: sqlite3.Connection, account: Account, now_s: int) -> Account:
    """A correction that lowers our count may be of the time before the balance was told: it gives nothing back."""
    row = db.execute("select * from credits where account = ?", (account.name,)).fetchone()
    if not row:
        return account
    told, ends = row["left_usd_micro"], iso(row["ends_s"]) if row["ends_s"] else ""
    if told is None:
        return replace(account, credit_ends=ends)
    since = spent(db, account.name, row["told_s"], now_s)
    left = told - since.legs_usd_micro - since.standing_usd_micro - max(0, since.corrected_usd_micro)
    return replace(account, credit_usd_micro=left, credit_told_usd_micro=told, credit_ends=ends)


def _next_refresh_s(row: sqlite3.Row, now_s: int) -> int:
    """When the hours of an account next come back; 0 where they never do."""
    if not row["window_s"]:
        return 0
    return int(row["refresh_s"] + -(-max(0, now_s + 1 - row["refresh_s"]) // row["window_s"]) * row["window_s"])


def refusals(account: Account, worst_usd_micro: int, worst_s: int, now_s: int) -> Iterator[str]:
    """In words, each limit of `account` that the worst case would cross; nothing where it fits."""
    yield from _usd_refusals(account, worst_usd_micro)
    if account.credit_ends and worst_usd_micro and now_s + worst_s > seconds(account.credit_ends):
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

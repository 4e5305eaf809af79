"""An account: its limits, what is used, reserved and free of each, what a new leg would cross, and its ledger lines.

This is the only place that computes what is left. `read_account` sums the ledger; everything else follows from the
`Account` that it returns. Amounts are micro-dollars (``*_usd_micro``) and seconds (``*_s``).
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace

from boneagectl import units
from boneagectl.models import Quota, Verdict, format_iso, parse_iso

WEEK_S = 7 * 86_400


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of an account, in seconds where `is_time`, else in micro-dollars.

    `kind` is cap (set by the user), credit (prepaid) or quota (given per period by the provider). `used` is settled;
    `running` is what running legs have used of what is `reserved` for them.
    """

    kind: str
    is_time: bool
    limit: int
    used: int
    reserved: int
    running: int

    @property
    def left(self) -> int:
        return self.limit - self.used

    @property
    def free(self) -> int:
        return max(0, self.left - self.reserved)

    def format_amount(self, amount: int) -> str:
        return units.format_duration(amount) if self.is_time else units.format_usd(amount)


@dataclass(frozen=True, slots=True)
class Account:
    """One budget in the ledger. `cap_*` is None where no cap is set.

    `quota_s` is what the provider gives until `refresh`; `spent_s` is then the use of that period only.
    """

    name: str
    cap_usd_micro: int | None
    cap_s: int | None
    spent_usd_micro: int
    spent_s: int
    reserved_usd_micro: int
    reserved_s: int
    quota_s: int | None = None
    refresh: str = ""
    standing_usd_micro: int = 0
    """The part of what was spent that recurring charges cost."""
    credit_usd_micro: int | None = None
    """What is left of a prepaid credit: the last balance entered, `credit_told_usd_micro`, minus the use since."""
    credit_told_usd_micro: int | None = None
    credit_ends: str = ""
    week_usd_micro: int = 0
    """Spent in the last seven days."""
    running_usd_micro: int = 0
    running_s: int = 0
    """What running legs have used of their reservations, as of the last poll."""
    reconciled_usd_micro: int = 0
    """The part of what was spent that the provider's bill has confirmed."""
    typical_run_usd_micro: int = 0
    typical_run_s: int = 0
    """Average cost of a recent run."""
    alert_at: tuple[int, ...] = ()
    """Shares of a limit, in percent, at which to notify."""
    at_cap: str = "refuse"
    """Whether a limit only refuses new legs, or also stops running ones before it is crossed: refuse or stop."""

    @property
    def usd_limits(self) -> list[Limit]:
        """A cap counts everything ever spent; a credit counts what was spent since its balance was entered."""
        reserved, running = self.reserved_usd_micro, self.running_usd_micro
        limits = []
        if (cap := self.cap_usd_micro) is not None:
            limits.append(Limit("cap", False, cap, self.spent_usd_micro, reserved, running))
        if (left := self.credit_usd_micro) is not None:
            balance = left if self.credit_told_usd_micro is None else self.credit_told_usd_micro
            limits.append(Limit("credit", False, balance, balance - left, reserved, running))
        return limits

    @property
    def time_limit(self) -> Limit | None:
        """The smaller of hour cap and quota."""
        caps = [("quota", self.quota_s), ("cap", self.cap_s)]
        kind, limit_s = min(((k, s) for k, s in caps if s is not None), key=lambda cap: cap[1], default=("", None))
        if limit_s is None:
            return None
        return Limit(kind, True, limit_s, self.spent_s, self.reserved_s, self.running_s)

    @property
    def limits(self) -> list[Limit]:
        """Dollars before hours."""
        return [*self.usd_limits, *([self.time_limit] if self.time_limit else [])]

    @property
    def limit_s(self) -> int | None:
        return self.time_limit.limit if self.time_limit else None

    @property
    def free_s(self) -> int | None:
        """Seconds that may still be reserved; None without a limit."""
        return self.time_limit.free if self.time_limit else None

    @property
    def free_usd_micro(self) -> int | None:
        """What may still be reserved under cap and credit; None with neither."""
        return min((limit.free for limit in self.usd_limits), default=None)

    @property
    def lasts_days(self) -> float | None:
        """How long the free dollars last at last week's rate; None where nothing is spent or limited."""
        free = self.free_usd_micro
        return None if free is None or not self.week_usd_micro else 7 * free / self.week_usd_micro

    @property
    def lasts_runs(self) -> int | None:
        """How many typical runs fit into what is free, in dollars or hours, whichever is fewer; None if unknown."""
        parts = ((self.free_usd_micro, self.typical_run_usd_micro), (self.free_s, self.typical_run_s))
        return min((free // each for free, each in parts if free is not None and each), default=None)

    def quota_wait_s(self, needed_s: int, now_s: float) -> float:
        """Seconds until the provider has given `needed_s` of quota; each refresh gives the whole quota again."""
        if not self.quota_s or not self.refresh:
            return 0.0
        missing_s = needed_s - max(0, self.quota_s - self.spent_s - self.reserved_s)
        if missing_s <= 0:
            return 0.0
        later_refreshes = math.ceil(missing_s / self.quota_s) - 1
        return max(0.0, parse_iso(self.refresh) - now_s) + later_refreshes * WEEK_S


# ------------------------------------------------------------------------------------------ checks of a new leg
def check_account(account: Account, worst_usd_micro: int, worst_s: int, now_s: float) -> list[Verdict]:
    """A refusal for each limit that the maximum cost would cross, or one verdict that allows it."""
    refused = list(_refusals(account, worst_usd_micro, worst_s, now_s))
    detail = f"account {account.name}: {'within its limits' if account.limits else 'no cap set'}"
    return refused or [Verdict("cap", True, detail)]


def _refusals(account: Account, worst_usd_micro: int, worst_s: int, now_s: float) -> Iterator[Verdict]:
    for limit in account.limits:
        worst = worst_s if limit.is_time else worst_usd_micro
        if limit.used + limit.reserved + worst <= limit.limit:
            continue
        wanted, free, total = map(limit.format_amount, (worst, limit.free, limit.limit))
        until = f" until {account.refresh}" if limit.kind == "quota" and account.refresh else ""
        what = f"this may {'take' if limit.is_time else 'cost'} {wanted}, {free} of the {total} {limit.kind} is free"
        yield Verdict(limit.kind, False, f"account {account.name}: {what}{until}", _next_step(account, limit))
    if account.credit_ends and worst_usd_micro and now_s + worst_s > parse_iso(account.credit_ends):
        detail = f"account {account.name}: the credit ends on {account.credit_ends[:10]}, possibly before this leg does"
        yield Verdict("credit", False, detail, "shorten it: --time-limit")


def _next_step(account: Account, limit: Limit) -> str:
    """A cap can be raised. A quota cannot: it is waited for."""
    if limit.kind == "quota":
        wait = f"wait until {account.refresh}" if account.refresh else "wait until it is refreshed"
        return f"shorten it (--time-limit), {wait}, or choose another --target"
    if limit.kind == "credit":
        return "shorten it (--time-limit), or enter a new balance: boneagectl budget set --azure-balance USD"
    option = "--cap-hours HOURS" if limit.is_time else "--cap-usd USD"
    return f"shorten it (--time-limit), or raise the cap: boneagectl budget set {account.name} {option}"


def check_quota(quota: Quota, target: str, worst_s: int) -> Verdict:
    """Whether the provider's own count has the hours that a leg may take."""
    free, allowed = units.format_duration(quota.free_s), units.format_duration(quota.allowed_s)
    refresh = units.format_local(quota.refresh_s)
    detail = f"{free} of the {allowed} quota is free by {target}'s own count; it is refreshed {refresh}"
    if worst_s <= quota.free_s:
        return Verdict("quota", True, detail)
    step = f"shorten it (--time-limit), wait until {refresh}, or choose another --target"
    return Verdict("quota", False, f"this may take {units.format_duration(worst_s)}, {detail}", step)


# ------------------------------------------------------------------------------------------ from the ledger
# One pass over everything an account ever reserved. What was settled before :window no longer counts against a quota;
# the last three sums are parts of what was spent: since :week, up to :until, and since :balance.
_LEGS = """select coalesce(sum(s.usd_micro), 0),
                  coalesce(sum(case when s.created_s >= :window then s.seconds end), 0),
                  coalesce(sum(case when s.leg_id is null then r.usd_micro end), 0),
                  coalesce(sum(case when s.leg_id is null then r.seconds end), 0),
                  coalesce(sum(case when s.created_s >= :week then s.usd_micro end), 0),
                  coalesce(sum(case when s.created_s <= :until then s.usd_micro end), 0),
                  coalesce(sum(case when s.created_s >= :balance then s.usd_micro end), 0)
           from reservations r left join settlements s using (leg_id) where r.account = :account"""

_SETTLED = """select coalesce(sum(s.usd_micro), 0) from settlements s join reservations r using (leg_id)
              where r.account = ? and s.created_s >= ? and s.created_s <= ?"""

# Whole days, from ?2 to ?3.
_CHARGES = """select coalesce(sum(usd_micro_per_day * max(0,
                (min(coalesce(until_s, ?3), ?3) - max(since_s, ?2) + 86399) / 86400)), 0)
              from standing where account = ?1"""

_ADJUSTMENTS = """select coalesce(sum(usd_micro), 0), coalesce(sum(seconds), 0)
                  from reconciliations where account = ? and created_s >= ?"""
_CONFIRMED = "select max(until_s) from reconciliations where account = ?"

# The plus makes SQLite begin with the few open legs, not with all that an account ever had.
_RUNNING = """select coalesce(sum(l.usd_micro), 0), coalesce(sum(l.elapsed_s), 0)
              from legs l join reservations r using (leg_id)
              where +r.account = ? and l.state in ('reserved', 'queued', 'running')"""

# Average cost of the runs of the last 25 reservations.
_TYPICAL = """select coalesce(avg(usd_micro), 0), coalesce(avg(seconds), 0) from (
                select sum(s.usd_micro) as usd_micro, sum(s.seconds) as seconds
                from (select leg_id from reservations where account = ? order by rowid desc limit 25)
                join legs l using (leg_id) join settlements s using (leg_id)
                where l.state != 'released' group by l.run_id)"""

_NEVER_S = 2**60


def read_account(db: sqlite3.Connection, name: str, now_s: int) -> Account:
    """The account's limits and usage; an account that was never used has neither."""
    row = db.execute("select * from accounts where name = ?", (name,)).fetchone()
    if not row:
        return Account(name, None, None, 0, 0, 0, 0)
    credit = db.execute("select * from credits where account = ?", (name,)).fetchone()
    refresh_s, until_s = _next_refresh_s(row, now_s), db.execute(_CONFIRMED, (name,)).fetchone()[0]
    window_s, week_s = refresh_s - (row["window_s"] or 0), now_s - WEEK_S
    balance_s = credit["told_s"] if credit else _NEVER_S
    times = {"window": window_s, "week": week_s, "until": until_s or 0, "balance": balance_s}
    sums = db.execute(_LEGS, {"account": name, **times}).fetchone()
    settled, used_s, reserved, reserved_s, week, confirmed, since_balance = sums
    charges, adjusted_s = _charges(db, name, 0, now_s), _adjustments(db, name, window_s)[1]
    running_usd_micro, running_s = db.execute(_RUNNING, (name,)).fetchone()
    typical_usd_micro, typical_s = db.execute(_TYPICAL, (name,)).fetchone()
    account = Account(
        name,
        row["cap_usd_micro"],
        row["cap_s"],
        settled + charges + _adjustments(db, name, 0)[0],
        max(0, used_s + adjusted_s),
        reserved,
        reserved_s,
        quota_s=row["quota_s"],
        refresh=format_iso(refresh_s) if refresh_s else "",
        standing_usd_micro=charges,
        week_usd_micro=week + _beside_legs(db, name, week_s, now_s),
        running_usd_micro=running_usd_micro,
        running_s=running_s,
        reconciled_usd_micro=0 if until_s is None else confirmed + _beside_legs(db, name, 0, until_s),
        typical_run_usd_micro=int(typical_usd_micro),
        typical_run_s=int(typical_s),
        alert_at=tuple(json.loads(row["alert_at"])),
        at_cap=row["at_cap"],
    )
    return _with_credit(db, account, credit, since_balance, now_s) if credit else account


def sum_spent_usd_micro(db: sqlite3.Connection, name: str, since_s: int, until_s: int) -> int:
    """Micro-dollars paid between two Unix times: for legs that ended then, and for recurring charges.

    Adjustments made since the first time are included whole, also those made after the second.
    """
    return int(db.execute(_SETTLED, (name, since_s, until_s)).fetchone()[0]) + _beside_legs(db, name, since_s, until_s)


def _beside_legs(db: sqlite3.Connection, name: str, since_s: int, until_s: int) -> int:
    return _charges(db, name, since_s, until_s) + _adjustments(db, name, since_s)[0]


def _charges(db: sqlite3.Connection, name: str, since_s: int, until_s: int) -> int:
    return int(db.execute(_CHARGES, (name, since_s, until_s)).fetchone()[0])


def _adjustments(db: sqlite3.Connection, name: str, since_s: int) -> tuple[int, int]:
    """Micro-dollars and seconds that the provider's count has added since a Unix time, or removed."""
    usd_micro, adjusted_s = db.execute(_ADJUSTMENTS, (name, since_s)).fetchone()
    return usd_micro, adjusted_s


def _with_credit(
    db: sqlite3.Connection, account: Account, row: sqlite3.Row, legs_usd_micro: int, now_s: int
) -> Account:
    """An adjustment that lowers our count may concern the time before the balance was entered: it returns nothing."""
    balance, ends = row["left_usd_micro"], format_iso(row["ends_s"]) if row["ends_s"] else ""
    if balance is None:
        return replace(account, credit_ends=ends)
    adjusted = max(0, _adjustments(db, account.name, row["told_s"])[0])
    left = balance - legs_usd_micro - _charges(db, account.name, row["told_s"], now_s) - adjusted
    return replace(account, credit_usd_micro=left, credit_told_usd_micro=balance, credit_ends=ends)


def _next_refresh_s(row: sqlite3.Row, now_s: int) -> int:
    """The Unix time of the next quota refresh; 0 where there is none."""
    if not row["window_s"]:
        return 0
    return int(row["refresh_s"] + -(-max(0, now_s + 1 - row["refresh_s"]) // row["window_s"]) * row["window_s"])


# ------------------------------------------------------------------------------------------ line by line
@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger. `kind` is reserved, returned, spent, standing (a recurring charge) or reconciled.

    Amounts that are returned, or were counted too high, are negative.
    """

    time: str
    account: str
    run_id: str
    leg_id: str
    kind: str
    usd_micro: int
    seconds: int
    note: str


_LINES = """
  select r.created_s as at_s, r.account, l.run_id, l.leg_id, 'reserved' as kind, r.usd_micro, r.seconds,
         'maximum for ' || l.time_limit_s || ' s on ' || l.target as note
    from reservations r join legs l using (leg_id)
  union all
  select s.created_s, r.account, l.run_id, l.leg_id, 'returned', -r.usd_micro, -r.seconds, 'its reservation'
    from settlements s join reservations r using (leg_id) join legs l using (leg_id)
  union all
  select s.created_s, r.account, l.run_id, l.leg_id, 'spent', s.usd_micro, s.seconds, s.basis
    from settlements s join reservations r using (leg_id) join legs l using (leg_id)
  union all
  select since_s, account, '', '', 'standing',
         usd_micro_per_day * max(0, (coalesce(until_s, ?1) - since_s + 86399) / 86400), 0,
         what || ', charged daily since ' || strftime('%Y-%m-%d', since_s, 'unixepoch')
    from standing
  union all
  select created_s, account, '', '', 'reconciled', usd_micro, seconds, note from reconciliations"""
_ORDER = {"reserved": 0, "returned": 1, "spent": 2, "standing": 3, "reconciled": 4}


def read_entries(db: sqlite3.Connection, now_s: int) -> list[Entry]:
    """Every line, oldest first. The lines of one account add up to what it has spent and reserved."""
    rows = db.execute(_LINES, (now_s,)).fetchall()
    rows.sort(key=lambda row: (row["at_s"], row["leg_id"], _ORDER[row["kind"]]))
    names = ("account", "run_id", "leg_id", "kind", "usd_micro", "seconds", "note")
    return [Entry(format_iso(row["at_s"]), *(row[name] for name in names)) for row in rows]

"""What is left of each limit of an account over time: the numbers behind the burn-down figures.

Pure: from the lines of the ledger, the account they add up to, and a time. Amounts are counted in
micro-dollars and seconds, and leave in dollars and hours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from boneagectl import units
from boneagectl.models import Account, Entry, format_iso, parse_iso

DAY_S = 86_400
WEEK_S = 7 * DAY_S
"""The time of a rate, and the only time after which a provider gives its hours again."""
_BOOKED = ("reserved", "returned")
_UNITS = {"US$": units.MICRO, "h": 3600}


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit of an account, in the smallest unit of `unit`; `free` is what of `left` is not reserved.

    What was spent before `since_s` does not count against it; at `ends_s` it is over, or full again.
    """

    kind: str
    unit: str
    left: int
    free: int
    week: int
    since_s: int
    ends_s: int | None
    amount: Callable[[Entry], int]


def expand_daily_charges(lines: Iterable[Entry], paid_since: Callable[[int], int], now_s: int) -> list[Entry]:
    """The `lines` of one account, oldest first, those of what stands as a line for each day it was paid for.

    The ledger has one line for all days of a thing; `paid_since` tells what was paid since a Unix time in
    micro-dollars, as `Ledger.spent_usd_micro` does. A day is paid when it begins, counted from the first of them.
    """
    lines = list(lines)
    others = [line for line in lines if line.kind != "standing"]
    begun_s = min((_at_s(line) for line in lines if line.kind == "standing"), default=now_s)
    days_s = range(begun_s, now_s + DAY_S, DAY_S)
    besides = _sums_by_day(others, begun_s)
    paid = [paid_since(day_s) for day_s in days_s] if len(days_s) > 1 else []
    for number in range(len(paid) - 1):
        usd_micro = paid[number] - paid[number + 1] - besides[number]
        others.append(Entry(format_iso(days_s[number]), lines[0].account, "", "", "standing", usd_micro, 0, "one day"))
    return sorted(others, key=attrgetter("time"))


def _sums_by_day(lines: Iterable[Entry], begun_s: int) -> Counter[int]:
    """Micro-dollars spent in each day since `begun_s`, by the number of the day."""
    sums: Counter[int] = Counter()
    for line in lines:
        if line.kind not in _BOOKED:
            sums[(_at_s(line) - begun_s) // DAY_S] += line.usd_micro
    return sums


def limit_series(account: Account, lines: Sequence[Entry], now_s: int) -> list[dict[str, Any]]:
    """An object for each limit of `account` of which anything is used, dollars before hours; `lines` as of `by_day`.

    ``account``; ``unit``: US$ or h, that of all amounts; ``kind``: cap, credit or quota; ``limit``;
    ``points``: [Unix time, left] from the first use, or from when the hours came back, until now, one
    each time that something was spent; ``reserved`` and ``free``, which together are the last point;
    ``week``: spent in the last seven days; ``as_of_s``; ``runs_out_s``: when what is free is used up
    at that rate, None where the rate is none; ``ends_s``: when the credit ends or the hours come back.
    """
    limits = (_dollars(account), _hours(account, lines, now_s))
    return [_facts(account.name, limit, lines, now_s) for limit in limits if limit]


def _dollars(account: Account) -> _Limit | None:
    free, spent, credit = account.free_usd_micro, account.spent_usd_micro, account.credit_usd_micro
    if free is None or not (spent or account.reserved_usd_micro):
        return None
    left = {"credit": credit, "cap": None if account.cap_usd_micro is None else account.cap_usd_micro - spent}
    known = {kind: value for kind, value in left.items() if value is not None}
    kind = min(known, key=lambda kind: known[kind])
    ends_s = int(parse_iso(account.credit_ends)) if account.credit_ends else None
    return _Limit(kind, "US$", known[kind], free, account.week_usd_micro, 0, ends_s,
                  attrgetter("usd_micro"))  # fmt: skip


def _hours(account: Account, lines: Sequence[Entry], now_s: int) -> _Limit | None:
    limit_s = account.limit_s
    if limit_s is None or not (account.spent_s or account.reserved_s):
        return None
    left_s = limit_s - account.spent_s
    ends_s = int(parse_iso(account.refresh)) if account.refresh else None
    week_s = sum(amount for _, amount in _spent(lines, attrgetter("seconds"), now_s - WEEK_S))
    return _Limit("quota" if limit_s == account.quota_s else "cap", "h", left_s,
                  max(0, left_s - account.reserved_s), week_s, ends_s - WEEK_S if ends_s else 0, ends_s,
                  attrgetter("seconds"))  # fmt: skip


def _spent(lines: Iterable[Entry], amount: Callable[[Entry], int], since_s: int) -> list[tuple[int, int]]:
    """(Unix time, amount) of what changed what was spent; a booking does not, whatever else there is does."""
    told = [(_at_s(line), amount(line)) for line in lines if line.kind not in _BOOKED]
    return [(at_s, one) for at_s, one in told if one and at_s >= since_s]


def _facts(name: str, limit: _Limit, lines: Sequence[Entry], now_s: int) -> dict[str, Any]:
    per = _UNITS[limit.unit]
    points = _points(limit, lines, now_s)
    left = max(0, limit.left)
    return {
        "account": name,
        "unit": limit.unit,
        "kind": limit.kind,
        "limit": points[0][1] / per,
        "points": [[at_s, max(0, value) / per] for at_s, value in points],
        "reserved": (left - limit.free) / per,
        "free": limit.free / per,
        "week": limit.week / per,
        "as_of_s": now_s,
        "runs_out_s": now_s + WEEK_S * limit.free / limit.week if limit.week > 0 else None,
        "ends_s": limit.ends_s,
    }


def _points(limit: _Limit, lines: Sequence[Entry], now_s: int) -> list[tuple[int, int]]:
    """(Unix time, left), oldest first. Counted back from now, so that the last one is what the account says."""
    left, points = limit.left, [(now_s, limit.left)]
    for at_s, amount in reversed(_spent(lines, limit.amount, limit.since_s)):
        points.append((min(at_s, now_s), left))
        left += amount
    first_s = limit.since_s or min((_at_s(line) for line in lines if limit.amount(line)), default=now_s)
    return [(min(first_s, now_s), left), *reversed(points)]


def _at_s(line: Entry) -> int:
    return int(parse_iso(line.time))

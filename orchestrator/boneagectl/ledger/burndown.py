"""What is left of each limit of an account over time: the numbers behind the burn-down figures.

Pure: from ledger lines, the account they add up to, and a time. Amounts are counted in micro-dollars and seconds, and
returned in dollars and hours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from boneagectl import units
from boneagectl.ledger.accounts import WEEK_S, Account, Entry, Limit
from boneagectl.models import format_iso, parse_iso

DAY_S = 86_400
_RESERVATIONS = ("reserved", "returned")


def expand_daily_charges(lines: Iterable[Entry], spent_since: Callable[[int], int], now_s: int) -> list[Entry]:
    """The `lines` of one account, oldest first, with one line for each day of a recurring charge.

    The ledger has one line for all days of a charge; `spent_since` gives the micro-dollars spent since a Unix time, as
    `Ledger.spent_usd_micro` does. A day is charged when it begins, counted from the first charge.
    """
    lines = list(lines)
    expanded = [line for line in lines if line.kind != "standing"]
    first_s = min((_at_s(line) for line in lines if line.kind == "standing"), default=now_s)
    days_s = range(first_s, now_s + DAY_S, DAY_S)
    beside: Counter[int] = Counter()  # micro-dollars spent otherwise, by the number of the day
    for line in expanded:
        if line.kind not in _RESERVATIONS:
            beside[(_at_s(line) - first_s) // DAY_S] += line.usd_micro
    spent = [spent_since(day_s) for day_s in days_s] if len(days_s) > 1 else []
    for number in range(len(spent) - 1):
        usd_micro = spent[number] - spent[number + 1] - beside[number]
        expanded.append(
            Entry(format_iso(days_s[number]), lines[0].account, "", "", "standing", usd_micro, 0, "one day")
        )
    return sorted(expanded, key=attrgetter("time"))


def limit_series(account: Account, lines: Sequence[Entry], now_s: int) -> list[dict[str, Any]]:
    """An object for each limit of `account` that is used at all, dollars before hours.

    `lines` come from `expand_daily_charges`. Of cap and credit, the one with less left counts.

    ``account``; ``unit``: US$ or h, that of all amounts; ``kind``: cap, credit or quota; ``limit``;
    ``points``: [Unix time, left] from the first use, or from the last refresh, until now, one each time that something
    was spent; ``reserved`` and ``free``, which together are the last point; ``week``: spent in the last seven days;
    ``as_of_s``; ``runs_out_s``: when the free amount is used up at that rate, None without a rate; ``ends_s``: when
    the credit ends or the quota is refreshed.
    """
    series = []
    dollars = min(account.usd_limits, key=attrgetter("left"), default=None)
    if dollars and (account.spent_usd_micro or account.reserved_usd_micro):
        ends_s = int(parse_iso(account.credit_ends)) if account.credit_ends else None
        series.append(_series(account.name, dollars, account.week_usd_micro, 0, ends_s, lines, now_s))
    hours = account.time_limit
    if hours and (hours.used or hours.reserved):
        ends_s = int(parse_iso(account.refresh)) if account.refresh else None
        week_s = sum(amount for _, amount in _spendings(lines, attrgetter("seconds"), now_s - WEEK_S))
        since_s = ends_s - WEEK_S if ends_s else 0
        series.append(_series(account.name, hours, week_s, since_s, ends_s, lines, now_s))
    return series


def _series(
    name: str, limit: Limit, week: int, since_s: int, ends_s: int | None, lines: Sequence[Entry], now_s: int
) -> dict[str, Any]:
    """`week`: spent in the last seven days; what was spent before `since_s` does not count against the limit."""
    unit, per = ("h", 3600) if limit.is_time else ("US$", units.MICRO)
    amount = attrgetter("seconds" if limit.is_time else "usd_micro")
    left, points = max(0, limit.left), _points(limit.left, lines, amount, since_s, now_s)
    return {
        "account": name,
        "unit": unit,
        "kind": limit.kind,
        "limit": points[0][1] / per,
        "points": [[at_s, max(0, value) / per] for at_s, value in points],
        "reserved": (left - limit.free) / per,
        "free": limit.free / per,
        "week": week / per,
        "as_of_s": now_s,
        "runs_out_s": now_s + WEEK_S * limit.free / week if week > 0 else None,
        "ends_s": ends_s,
    }


def _points(
    left: int, lines: Sequence[Entry], amount: Callable[[Entry], int], since_s: int, now_s: int
) -> list[tuple[int, int]]:
    """(Unix time, left), oldest first. Counted back from now, so that the last point is what the account says."""
    points = [(now_s, left)]
    for at_s, value in reversed(_spendings(lines, amount, since_s)):
        points.append((min(at_s, now_s), left))
        left += value
    first_s = since_s or min((_at_s(line) for line in lines if amount(line)), default=now_s)
    return [(min(first_s, now_s), left), *reversed(points)]


def _spendings(lines: Iterable[Entry], amount: Callable[[Entry], int], since_s: int) -> list[tuple[int, int]]:
    """(Unix time, amount) of every line that changed what was spent: all but reservations."""
    spendings = [(_at_s(line), amount(line)) for line in lines if line.kind not in _RESERVATIONS]
    return [(at_s, value) for at_s, value in spendings if value and at_s >= since_s]


def _at_s(line: Entry) -> int:
    return int(parse_iso(line.time))

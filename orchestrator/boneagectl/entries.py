"""The ledger line by line: each booking, each settlement, each thing paid by the day; their sums are the accounts."""

from __future__ import annotations

import sqlite3

from boneagectl.records import Entry, iso

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


def read(db: sqlite3.Connection, now_s: int) -> list[Entry]:
    """Every line, oldest first. Those of one account add up to what it has spent and reserved."""
    rows = db.execute(_LINES, (now_s,)).fetchall()
    rows.sort(key=lambda row: (row["at_s"], row["leg_id"], _ORDER[row["kind"]]))
    names = ("account", "run_id", "leg_id", "kind", "usd_micro", "seconds", "note")
    return [Entry(iso(row["at_s"]), *(row[name] for name in names)) for row in rows]

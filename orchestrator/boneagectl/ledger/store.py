"""The ledger: accounts, runs, legs, reservations, observations and settlements in one SQLite file.

The only mutable truth. Money is counted in integer micro-dollars, time in integer seconds. A leg costs an account its
reservation until it is settled, and its settlement from then on. A reservation is checked against the limits and
recorded in one immediate transaction, so that no limit can be crossed. What is left of an account: accounts.py.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneagectl.errors import LimitRefused, MachineError, UsageError
from boneagectl.ledger.schema import migrate
from boneagectl.models import Leg, LegState, Relay, Run, as_json, format_iso

if TYPE_CHECKING:  # a quick command like `ls` needs none of these: see boneagectl.models
    from boneagectl.ledger.accounts import Account, Entry
    from boneagectl.models import Handle, Observation, Plan, Quota, Speed

_BUSY_TIMEOUT_S = 60

_LEGS = """select l.*, r.usd_micro as reserved_usd_micro, s.usd_micro as spent_usd_micro
           from legs l join reservations r using (leg_id) left join settlements s using (leg_id)"""

_OPEN_CHARGE = "select * from standing where account = ? and what = ? and until_s is null"
_STOP_CHARGE = "update standing set until_s = ? where account = ? and what = ? and until_s is null"


class Ledger:
    """One open ledger file; created, and migrated to this version's schema, on first use."""

    def __init__(self, path: Path) -> None:
        """Raises MachineError where the file is unreadable, not a ledger, or of a newer version."""
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise _broken(path, error) from None
        try:
            self._db.row_factory = sqlite3.Row
            migrate(self._db, self.path)  # first: a file of a newer version must stay as it is, its journal mode too
            for pragma in ("journal_mode = wal", "synchronous = full", "foreign_keys = on"):
                self._db.execute(f"pragma {pragma}")
        except sqlite3.Error as error:
            self.close()
            raise _broken(path, error) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One immediate transaction: all of the block or nothing, and no other process writes meanwhile."""
        try:
            self._db.execute("begin immediate")
            try:
                yield self._db
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:  # SQLite has ended it already where the disk is full
                    self._db.execute("rollback")
                raise
        except sqlite3.Error as error:
            raise _broken(self.path, error) from None

    # ------------------------------------------------------------------------------- legs
    def reserve(self, plan: Plan, bundle_sha256: str) -> None:
        """Reserves the plan's maximum cost on the target's account, with its run and leg, or does nothing.

        Raises:
            LimitRefused: a limit of the account would be crossed, or another process has added this leg.
        """
        from boneagectl.ledger.accounts import check_account

        with self._writing() as db:
            account = self._account(plan.quote.target)
            for verdict in check_account(account, plan.quote.worst_usd_micro, plan.quote.worst_s, _now_s()):
                if not verdict.allows:
                    raise LimitRefused(verdict.detail, verdict.next_step)
            self._insert_run(db, plan, bundle_sha256)
            self._insert_leg(db, plan)
            db.execute(
                "insert into reservations values (?, ?, ?, ?, ?)",
                (plan.leg_id, account.name, plan.quote.worst_usd_micro, plan.quote.worst_s, _now_s()),
            )

    def _insert_run(self, db: sqlite3.Connection, plan: Plan, bundle_sha256: str) -> None:
        if plan.leg_number > 1:
            return
        taken = db.execute("select 1 from runs where run_id = ?", (plan.run_id,)).fetchone()
        if taken:
            raise UsageError(f"there is a run {plan.run_id!r} already", "choose another --name")
        spec = plan.spec
        values = (json.dumps(as_json(spec.train)), json.dumps(spec.data), str(spec.pack), bundle_sha256, _now_s())
        db.execute("insert into runs values (?, ?, ?, ?, ?, ?)", (plan.run_id, *values))

    def _insert_leg(self, db: sqlite3.Connection, plan: Plan) -> None:
        before = db.execute(
            "select number, state from legs where run_id = ? order by number", (plan.run_id,)
        ).fetchall()
        if plan.leg_number != len(before) + 1 or any(not LegState(row["state"]).is_over for row in before):
            raise LimitRefused(f"{plan.run_id} has another leg meanwhile", f"boneagectl show {plan.run_id}")
        db.execute(
            """insert into legs (leg_id, run_id, number, target, state, epochs, time_limit_s, created_s)
               values (?, ?, ?, ?, ?, ?, ?, ?)""",
            (plan.leg_id, plan.run_id, plan.leg_number, plan.spec.target, LegState.RESERVED,
             plan.spec.train.epochs, plan.spec.time_limit_s, _now_s()),
        )  # fmt: skip

    def attach(self, leg_id: str, handle: Handle) -> None:
        """Records that the leg exists remotely as `handle`."""
        with self._writing() as db:
            db.execute(
                "update legs set handle = ?, state = ? where leg_id = ? and state = ?",
                (str(handle), LegState.QUEUED, leg_id, LegState.RESERVED),
            )

    def release(self, leg_id: str, why: str) -> None:
        """Returns the reservation of a leg that was never created; `why` stays readable."""
        with self._writing() as db:
            changed = db.execute(
                "update legs set state = ?, reason = ? where leg_id = ? and state = ?",
                (LegState.RELEASED, why, leg_id, LegState.RESERVED),
            )
            if changed.rowcount:
                self._settle(db, leg_id, 0, 0, f"released: {why}")

    def observe(self, leg_id: str, seen: Observation) -> None:
        """Records an observation; a leg that is over is settled by it and never changes again."""
        with self._writing() as db:
            before = db.execute("select * from legs where leg_id = ?", (leg_id,)).fetchone()
            if LegState(before["state"]).is_over:
                return
            elapsed_s = _elapsed_s(before, seen)
            db.execute(
                "update legs set state = ?, reason = ?, epoch = ?, elapsed_s = ?, usd_micro = ? where leg_id = ?",
                (seen.state, seen.reason, max(seen.epoch, before["epoch"]), elapsed_s, seen.spent_usd_micro, leg_id),
            )
            if (before["state"], before["epoch"]) != (seen.state, seen.epoch):
                db.execute(
                    """insert into observations (leg_id, state, reason, epoch, elapsed_s, usd_micro, created_s)
                       values (?, ?, ?, ?, ?, ?, ?)""",
                    (leg_id, seen.state, seen.reason, seen.epoch, elapsed_s, seen.spent_usd_micro, _now_s()),
                )
            if not seen.state.is_over:
                return
            usd_micro, basis = seen.spent_usd_micro, f"ended: {seen.state}"
            if seen.elapsed_s is None:
                usd_micro = self.leg(leg_id).reserved_usd_micro
                basis += ", duration unknown; settled at the full reservation"
            self._settle(db, leg_id, usd_micro, elapsed_s, basis)

    @staticmethod
    def _settle(db: sqlite3.Connection, leg_id: str, usd_micro: int, seconds: int, basis: str) -> None:
        db.execute(
            "insert into settlements values (?, ?, ?, ?, ?) on conflict do nothing",
            (leg_id, usd_micro, seconds, basis, _now_s()),
        )

    # -------------------------------------------------------------------------------- relays
    def set_relay(self, run_id: str, relay: Relay | None) -> None:
        """Makes the run continue by itself, or no longer with None."""
        with self._writing() as db:
            db.execute("delete from relays where run_id = ?", (run_id,))
            if relay:
                values = (run_id, relay.legs, relay.time_limit_s, json.dumps(relay.targets))
                db.execute("insert into relays values (?, ?, ?, ?)", values)

    def relay(self, run_id: str) -> Relay | None:
        row = self._db.execute("select * from relays where run_id = ?", (run_id,)).fetchone()
        return Relay(row["legs"], row["time_limit_s"], tuple(json.loads(row["targets"]))) if row else None

    # -------------------------------------------------------------------------------- notifications
    def mark_notified(self, what: str) -> bool:
        """Whether `what` was not notified yet; from now on it counts as notified, so only one process gets True."""
        with self._writing() as db:
            marked = db.execute(
                """insert into told values (?1, null)
                   on conflict do update set again_s = null where again_s <= ?2""", (what, _now_s()),
            )  # fmt: skip
            return marked.rowcount > 0

    def retry_notification(self, what: str, at_s: int) -> None:
        """After a failed notification: `what` may be notified again from a Unix time on."""
        with self._writing() as db:
            db.execute("update told set again_s = ? where what = ?", (at_s, what))

    def epoch_times(self, leg_id: str) -> list[tuple[int, int]]:
        """(epoch, Unix time at which it was first seen) of a running leg; epoch 0 is the start."""
        return [tuple(row) for row in self._db.execute(
            """select epoch, min(created_s) from observations where leg_id = ? and state = 'running'
               group by epoch order by epoch""", (leg_id,))]  # fmt: skip

    # -------------------------------------------------------------------------------- speeds
    def record_speed(self, leg_id: str, speed: Speed) -> None:
        """Stores what the leg measured; a later measurement, with more epochs, replaces it."""
        values = (leg_id, speed.target, speed.machine, speed.work, speed.images, speed.startup_s, speed.finish_s,
                  speed.load_ms, speed.compute_ms, json.dumps(speed.samples), _now_s())  # fmt: skip
        with self._writing() as db:
            db.execute("insert or replace into speeds values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def speeds(self, target: str, work: str) -> list[Speed]:
        """What was measured of a workload on the target, oldest first; the newest fifty."""
        rows = self._db.execute(
            "select * from speeds where target = ? and work = ? order by created_s desc limit 50", (target, work)
        ).fetchall()
        return [_speed(row) for row in reversed(rows)]

    # ------------------------------------------------------------------------------ accounts
    def set_cap(self, name: str, cap_usd_micro: int | None, cap_s: int | None) -> Account:
        """Sets both caps of an account; None removes one."""
        with self._writing() as db:
            self._account(name)
            db.execute("update accounts set cap_usd_micro = ?, cap_s = ? where name = ?", (cap_usd_micro, cap_s, name))
            return self._account(name)

    def set_quota(self, name: str, quota: Quota) -> None:
        """Records the provider's quota, and its next refresh if known."""
        with self._writing() as db:
            self._account(name)
            db.execute(
                "update accounts set quota_s = ?, refresh_s = coalesce(nullif(?, 0), refresh_s) where name = ?",
                (quota.allowed_s, quota.refresh_s, name),
            )

    def set_credit(self, name: str, left_usd_micro: int | None, ends_s: int | None) -> Account:
        """Records what is left of a prepaid credit now, and when it ends; None keeps the value before."""
        with self._writing() as db:
            self._account(name)
            db.execute("insert into credits values (?, null, 0, null) on conflict do nothing", (name,))
            if left_usd_micro is not None:
                values = (left_usd_micro, _now_s(), name)
                db.execute("update credits set left_usd_micro = ?, told_s = ? where account = ?", values)
            if ends_s is not None:
                db.execute("update credits set ends_s = ? where account = ?", (ends_s, name))
            return self._account(name)

    def start_charge(self, name: str, what: str, usd_micro_per_day: int) -> None:
        """Charges `what` daily from now on; a charge of that name that runs already continues at the new price."""
        with self._writing() as db:
            self._account(name)
            row = db.execute(_OPEN_CHARGE, (name, what)).fetchone()
            if row and row["usd_micro_per_day"] == usd_micro_per_day:
                return
            db.execute(_STOP_CHARGE, (_now_s(), name, what))
            new = (name, what, usd_micro_per_day, _now_s())
            db.execute("insert into standing (account, what, usd_micro_per_day, since_s) values (?, ?, ?, ?)", new)

    def stop_charge(self, name: str, what: str) -> None:
        """`what` costs nothing from now on."""
        with self._writing() as db:
            db.execute(_STOP_CHARGE, (_now_s(), name, what))

    def set_alerts(self, name: str, alert_at: tuple[int, ...], at_cap: str) -> Account:
        """Sets at which shares of its limits, in percent, to notify, and what happens when a limit is reached."""
        with self._writing() as db:
            self._account(name)
            values = (json.dumps(alert_at), at_cap, name)
            db.execute("update accounts set alert_at = ?, at_cap = ? where name = ?", values)
            return self._account(name)

    def adjust(self, name: str, usd_micro: int, seconds: int, until_s: int, note: str) -> None:
        """Adds the difference between the provider's count and ours; its count is complete until a Unix time."""
        with self._writing() as db:
            self._account(name)
            db.execute(
                """insert into reconciliations (account, usd_micro, seconds, until_s, note, created_s)
                   values (?, ?, ?, ?, ?, ?)""",
                (name, usd_micro, seconds, until_s, note, _now_s()),
            )

    def spent_usd_micro(self, name: str, since_s: int, until_s: int | None = None) -> int:
        """Micro-dollars that the account has spent since a Unix time, and up to another, by our own count."""
        from boneagectl.ledger.accounts import sum_spent_usd_micro

        return sum_spent_usd_micro(self._db, name, since_s, _now_s() if until_s is None else until_s)

    def account(self, name: str) -> Account:
        """The account's limits and usage; an account that was never used has neither."""
        from boneagectl.ledger.accounts import read_account

        return read_account(self._db, name, _now_s())

    def entries(self) -> list[Entry]:
        """The ledger line by line, oldest first."""
        from boneagectl.ledger.accounts import read_entries

        return read_entries(self._db, _now_s())

    def accounts(self) -> list[Account]:
        return [self.account(row[0]) for row in self._db.execute("select name from accounts order by name").fetchall()]

    def _account(self, name: str) -> Account:
        self._db.execute(
            "insert into accounts (name, created_s) values (?, ?) on conflict do nothing", (name, _now_s())
        )
        return self.account(name)

    # ------------------------------------------------------------------------------- queries
    def runs(self, limit: int | None = None) -> list[Run]:
        """Every run with its legs, newest first."""
        rows = self._db.execute("select * from runs order by created_s desc, rowid desc limit ?", (limit or -1,))
        return [self._run(row) for row in rows.fetchall()]

    def find_run(self, name: str) -> Run:
        """The run with this id, or the only one whose id begins with `name`; ``last`` is the newest.

        Raises:
            UsageError: no run matches, or more than one.
        """
        if name == "last":
            rows = self._db.execute("select * from runs order by created_s desc, rowid desc limit 1").fetchall()
        else:
            pattern = "select * from runs where run_id = ?1 or substr(run_id, 1, length(?1)) = ?1 order by run_id <> ?1"
            rows = self._db.execute(pattern, (name,)).fetchall()
        if not rows:
            raise UsageError(f"there is no run {name!r}", "boneagectl ls")
        if len(rows) > 1 and rows[0]["run_id"] != name:
            raise UsageError(f"{name!r} could be {', '.join(row['run_id'] for row in rows)}", "type more of the id")
        return self._run(rows[0])

    def open_legs(self) -> list[Leg]:
        """The legs that are not over."""
        states = [state.value for state in LegState if not state.is_over]
        marks = ", ".join("?" * len(states))
        return [_leg(row) for row in self._db.execute(f"{_LEGS} where l.state in ({marks}) order by l.leg_id", states)]

    def active_run_ids(self) -> list[str]:
        """The ids of the runs with a leg that is not over, or with a relay, oldest first."""
        rows = self._db.execute(
            """select run_id from runs where run_id in (select run_id from relays)
               or run_id in (select run_id from legs where state in ('reserved', 'queued', 'running'))
               order by created_s, rowid"""
        ).fetchall()
        return [row[0] for row in rows]

    def leg(self, leg_id: str) -> Leg:
        return _leg(self._db.execute(f"{_LEGS} where l.leg_id = ?", (leg_id,)).fetchone())

    def _run(self, row: sqlite3.Row) -> Run:
        legs = self._db.execute(f"{_LEGS} where l.run_id = ? order by l.number", (row["run_id"],))
        config, data = json.loads(row["config"]), json.loads(row["data"])
        created = format_iso(row["created_s"])
        return Run(row["run_id"], config, data, row["pack"], row["bundle_sha256"], created, tuple(map(_leg, legs)))


@contextmanager
def opened(path: Path) -> Iterator[Ledger]:
    """The ledger at `path`; closed after the block."""
    with closing(Ledger(path)) as ledger:
        try:
            yield ledger
        except sqlite3.Error as error:
            raise _broken(path, error) from None


def _elapsed_s(before: sqlite3.Row, seen: Observation) -> int:
    """Seconds that a leg has taken; for one that is over with unknown duration, the most that it can have taken."""
    if seen.elapsed_s is not None:
        return seen.elapsed_s
    longest_s = min(_now_s() - before["created_s"], before["time_limit_s"])
    return int(longest_s if seen.state.is_over else before["elapsed_s"])


def _leg(row: sqlite3.Row) -> Leg:
    names = ("leg_id", "run_id", "number", "target", "reason", "handle", "epoch", "epochs", "elapsed_s",
             "time_limit_s", "reserved_usd_micro", "spent_usd_micro")  # fmt: skip
    values: dict[str, Any] = {name: row[name] for name in names}
    return Leg(state=LegState(row["state"]), created=format_iso(row["created_s"]), **values)


def _speed(row: sqlite3.Row) -> Speed:
    from boneagectl.models import Speed

    names = ("target", "machine", "work", "images", "startup_s", "finish_s", "load_ms", "compute_ms")
    values: dict[str, Any] = {name: row[name] for name in names}
    return Speed(**values, samples=json.loads(row["samples"]), date=format_iso(row["created_s"]))


def _now_s() -> int:
    return int(time.time())


def _broken(path: Path, error: sqlite3.Error) -> MachineError:
    copies = sorted(path.parent.glob(f"{path.name}*.bak"))
    remedy = f"restore the copy {copies[-1]}" if copies else "move the file aside to start a new ledger"
    return MachineError(f"the ledger {path} cannot be used: {error}", f"{remedy}; it was not changed")

"""The ledger: accounts, runs, legs, reservations, observations and settlements in one SQLite file.

The only mutable truth. Money is counted in integer micro-dollars, time in integer seconds. A leg
costs an account its reservation until it is settled, and its settlement from then on; a reservation
is booked and checked against the caps in one immediate transaction, so nobody can overbook.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from boneagectl.errors import LimitRefused, MachineError, UsageError
from boneagectl.ledger.accounts import read_account as read_account
from boneagectl.ledger.accounts import read_entries as read_entries
from boneagectl.ledger.accounts import refusals, spent_usd_micro
from boneagectl.ledger.schema import migrate
from boneagectl.models import (
    Account,
    Entry,
    Handle,
    Leg,
    LegState,
    Observation,
    Plan,
    Quota,
    Relay,
    Run,
    Speed,
    as_json,
    format_iso,
)

_BUSY_TIMEOUT_S = 60

_LEGS = """select l.*, r.usd_micro as reserved_usd_micro, s.usd_micro as spent_usd_micro
           from legs l join reservations r using (leg_id) left join settlements s using (leg_id)"""

_STANDS = "select * from standing where account = ? and what = ? and until_s is null"
_FALLS = "update standing set until_s = ? where account = ? and what = ? and until_s is null"


class Ledger:
    """One open ledger file; made, and brought to this version's schema, on first use."""

    def __init__(self, path: Path) -> None:
        """Raises MachineError where the file is unreadable, no ledger, or of a newer version."""
        self.path = path
        try:
            self._db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        except sqlite3.Error as error:
            raise _broken(path, error) from None
        try:
            self._set_up()
        except sqlite3.Error as error:
            self.close()
            raise _broken(path, error) from None
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        """The schema comes first: a file of a newer version must stay as it is, its journal mode too."""
        self._db.row_factory = sqlite3.Row
        migrate(self._db, self.path)
        for pragma in ("journal_mode = wal", "synchronous = full", "foreign_keys = on"):
            self._db.execute(f"pragma {pragma}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One immediate transaction: all of the block or nothing, and nobody writes beside it."""
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

    # ------------------------------------------------------------------------------- booking
    def reserve(self, plan: Plan, bundle_sha256: str) -> None:
        """Books the plan's worst case on the target's account, with its run and leg, or does nothing.

        Raises:
            LimitRefused: the account's cap would be crossed, or the run got this leg from elsewhere.
        """
        with self._writing() as db:
            account = self._account(plan.quote.target)
            _check_cap(account, plan)
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
            raise LimitRefused(f"{plan.run_id} got another leg meanwhile", f"boneagectl show {plan.run_id}")
        db.execute(
            """insert into legs (leg_id, run_id, number, target, state, epochs, time_limit_s, created_s)
               values (?, ?, ?, ?, ?, ?, ?, ?)""",
            (plan.leg_id, plan.run_id, plan.leg_number, plan.spec.target, LegState.RESERVED,
             plan.spec.train.epochs, plan.spec.time_limit_s, _now_s()),
        )  # fmt: skip

    def attach(self, leg_id: str, handle: Handle) -> None:
        """Notes that the leg exists remotely as `handle`."""
        with self._writing() as db:
            db.execute(
                "update legs set handle = ?, state = ? where leg_id = ? and state = ?",
                (str(handle), LegState.QUEUED, leg_id, LegState.RESERVED),
            )

    def release(self, leg_id: str, why: str) -> None:
        """Gives back the reservation of a leg that never came to be; `why` stays readable."""
        with self._writing() as db:
            changed = db.execute(
                "update legs set state = ?, reason = ? where leg_id = ? and state = ?",
                (LegState.RELEASED, why, leg_id, LegState.RESERVED),
            )
            if changed.rowcount:
                self._settle(db, leg_id, 0, 0, f"released: {why}")

    def observe(self, leg_id: str, snapshot: Observation) -> None:
        """Notes what a poll saw; a leg that is over is settled with it, and never changes again."""
        with self._writing() as db:
            before = db.execute("select * from legs where leg_id = ?", (leg_id,)).fetchone()
            if LegState(before["state"]).is_over:
                return
            elapsed_s = _elapsed_s(before, snapshot)
            db.execute(
                "update legs set state = ?, reason = ?, epoch = ?, elapsed_s = ?, usd_micro = ? where leg_id = ?",
                (
                    snapshot.state,
                    snapshot.reason,
                    max(snapshot.epoch, before["epoch"]),
                    elapsed_s,
                    snapshot.spent_usd_micro,
                    leg_id,
                ),
            )
            if (before["state"], before["epoch"]) != (snapshot.state, snapshot.epoch):
                self._note(db, leg_id, snapshot, elapsed_s)
            if snapshot.state.is_over:
                usd_micro, basis = self._spent(leg_id, snapshot)
                self._settle(db, leg_id, usd_micro, elapsed_s, f"ended: {snapshot.state}{basis}")

    def _spent(self, leg_id: str, seen: Observation) -> tuple[int, str]:
        """What a leg that is over has cost; where nobody can tell how long it ran, all that was booked."""
        if seen.elapsed_s is not None:
            return seen.spent_usd_micro, ""
        return self.leg(leg_id).reserved_usd_micro, ", its time not known: all that was booked"

    @staticmethod
    def _note(db: sqlite3.Connection, leg_id: str, seen: Observation, elapsed_s: int) -> None:
        db.execute(
            """insert into observations (leg_id, state, reason, epoch, elapsed_s, usd_micro, created_s)
               values (?, ?, ?, ?, ?, ?, ?)""",
            (leg_id, seen.state, seen.reason, seen.epoch, elapsed_s, seen.spent_usd_micro, _now_s()),
        )

    @staticmethod
    def _settle(db: sqlite3.Connection, leg_id: str, usd_micro: int, seconds: int, basis: str) -> None:
        db.execute(
            "insert into settlements values (?, ?, ?, ?, ?) on conflict do nothing",
            (leg_id, usd_micro, seconds, basis, _now_s()),
        )

    # -------------------------------------------------------------------------------- relays
    def set_relay(self, run_id: str, relay: Relay | None) -> None:
        """Has the run go on by itself, or no more."""
        with self._writing() as db:
            db.execute("delete from relays where run_id = ?", (run_id,))
            if relay:
                values = (run_id, relay.legs, relay.time_limit_s, json.dumps(relay.targets))
                db.execute("insert into relays values (?, ?, ?, ?)", values)

    def relay(self, run_id: str) -> Relay | None:
        row = self._db.execute("select * from relays where run_id = ?", (run_id,)).fetchone()
        return Relay(row["legs"], row["time_limit_s"], tuple(json.loads(row["targets"]))) if row else None

    # -------------------------------------------------------------------------------- alerts
    def mark_notified(self, what: str) -> bool:
        """Whether `what` was not told yet, and is told from now on; of several that ask, one gets a yes."""
        with self._writing() as db:
            told = db.execute(
                """insert into told values (?1, null)
                   on conflict do update set again_s = null where again_s <= ?2""", (what, _now_s()),
            )  # fmt: skip
            return told.rowcount > 0

    def retry_notification(self, what: str, at_s: int) -> None:
        """It did not arrive: from a Unix time on it may be told once more."""
        with self._writing() as db:
            db.execute("update told set again_s = ? where what = ?", (at_s, what))

    def epoch_times(self, leg_id: str) -> list[tuple[int, int]]:
        """Each epoch of a leg at work with the Unix time it was first seen; 0 is its start."""
        return [tuple(row) for row in self._db.execute(
            """select epoch, min(created_s) from observations where leg_id = ? and state = 'running'
               group by epoch order by epoch""", (leg_id,))]  # fmt: skip

    # -------------------------------------------------------------------------------- speeds
    def record_speed(self, leg_id: str, speed: Speed) -> None:
        """Keeps what the leg measured; what it tells later, with more epochs, takes its place."""
        values = (leg_id, speed.target, speed.machine, speed.work, speed.images, speed.startup_s, speed.finish_s,
                  speed.load_ms, speed.compute_ms, json.dumps(speed.samples), _now_s())  # fmt: skip
        with self._writing() as db:
            db.execute("insert or replace into speeds values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)

    def speeds(self, target: str, work: str) -> list[Speed]:
        """What was measured of that work on the target, oldest first; the newest fifty."""
        rows = self._db.execute(
            "select * from speeds where target = ? and work = ? order by created_s desc limit 50", (target, work)
        ).fetchall()
        return [_speed(row) for row in reversed(rows)]

    # ------------------------------------------------------------------------------ accounts
    def set_cap(self, name: str, cap_usd_micro: int | None, cap_s: int | None) -> Account:
        """Sets both caps of an account; None lifts one."""
        with self._writing() as db:
            self._account(name)
            db.execute("update accounts set cap_usd_micro = ?, cap_s = ? where name = ?", (cap_usd_micro, cap_s, name))
            return self._account(name)

    def set_quota(self, name: str, quota: Quota) -> None:
        """Notes what the provider says it gives, and when it next comes back, if it says so."""
        with self._writing() as db:
            self._account(name)
            db.execute(
                "update accounts set quota_s = ?, refresh_s = coalesce(nullif(?, 0), refresh_s) where name = ?",
                (quota.allowed_s, quota.refresh_s, name),
            )

    def set_credit(self, name: str, left_usd_micro: int | None, ends_s: int | None) -> Account:
        """Notes what is left of a prepaid credit as of now, and when it ends; None leaves what was told before."""
        with self._writing() as db:
            self._account(name)
            db.execute("insert into credits values (?, null, 0, null) on conflict do nothing", (name,))
            if left_usd_micro is not None:
                told = (left_usd_micro, _now_s(), name)
                db.execute("update credits set left_usd_micro = ?, told_s = ? where account = ?", told)
            if ends_s is not None:
                db.execute("update credits set ends_s = ? where account = ?", (ends_s, name))
            return self._account(name)

    def start_charge(self, name: str, what: str, usd_micro_per_day: int) -> None:
        """Counts `what` by the day from now on; what stands already under that name goes on at the new price."""
        with self._writing() as db:
            self._account(name)
            row = db.execute(_STANDS, (name, what)).fetchone()
            if row and row["usd_micro_per_day"] == usd_micro_per_day:
                return
            db.execute(_FALLS, (_now_s(), name, what))
            new = (name, what, usd_micro_per_day, _now_s())
            db.execute("insert into standing (account, what, usd_micro_per_day, since_s) values (?, ?, ?, ?)", new)

    def stop_charge(self, name: str, what: str) -> None:
        """`what` is gone: it costs nothing from now on."""
        with self._writing() as db:
            db.execute(_FALLS, (_now_s(), name, what))

    def set_alerts(self, name: str, alert_at: tuple[int, ...], at_cap: str) -> Account:
        """Sets at which shares of its limits, in percent, to speak up, and what happens when one is reached."""
        with self._writing() as db:
            self._account(name)
            values = (json.dumps(alert_at), at_cap, name)
            db.execute("update accounts set alert_at = ?, at_cap = ? where name = ?", values)
            return self._account(name)

    def correct(self, name: str, usd_micro: int, seconds: int, until_s: int, note: str) -> None:
        """Adds what a provider's own count says more than ours, or less; it has all that was spent until a Unix
        time."""
        with self._writing() as db:
            self._account(name)
            db.execute(
                """insert into reconciliations (account, usd_micro, seconds, until_s, note, created_s)
                   values (?, ?, ?, ?, ?, ?)""",
                (name, usd_micro, seconds, until_s, note, _now_s()),
            )

    def spent_usd_micro(self, name: str, since_s: int, until_s: int | None = None) -> int:
        """What the account has paid since a Unix time, and up to another, by our own count."""
        return spent_usd_micro(self._db, name, since_s, _now_s() if until_s is None else until_s)

    def account(self, name: str) -> Account:
        """The account's limits and usage; one that was never used has neither."""
        return read_account(self._db, name, _now_s())

    def entries(self) -> list[Entry]:
        """The ledger line by line, oldest first."""
        return read_entries(self._db, _now_s())

    def accounts(self) -> list[Account]:
        return [self.account(row[0]) for row in self._db.execute("select name from accounts order by name").fetchall()]

    def _account(self, name: str) -> Account:
        self._db.execute(
            "insert into accounts (name, created_s) values (?, ?) on conflict do nothing", (name, _now_s())
        )
        return self.account(name)

    # ------------------------------------------------------------------------------- reading
    def runs(self, limit: int | None = None) -> list[Run]:
        """Every run with its legs, newest first."""
        rows = self._db.execute("select * from runs order by created_s desc, rowid desc limit ?", (limit or -1,))
        return [self._run(row) for row in rows.fetchall()]

    def find_run(self, name: str) -> Run:
        """The run with this id, or the only one whose id begins so; ``last`` is the newest.

        Raises:
            UsageError: none, or more than one, is meant.
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
        """The ids of the runs with a leg that is not over, or that may go on by themselves, oldest first."""
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
    """The ledger at `path`, closed again after the block."""
    with closing(Ledger(path)) as ledger:
        try:
            yield ledger
        except sqlite3.Error as error:
            raise _broken(path, error) from None


def _check_cap(account: Account, plan: Plan) -> None:
    """Refuses a reservation that could cross a cap of `account` at its worst."""
    for refusal in refusals(account, plan.quote.worst_usd_micro, plan.quote.worst_s, _now_s()):
        raise LimitRefused(
            refusal, f"shorten it (--time-limit), or raise the cap: boneagectl budget set {account.name}"
        )


def _elapsed_s(before: sqlite3.Row, seen: Observation) -> int:
    """What a leg has taken; where nobody can tell how long a leg that is over ran, the most it can have."""
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
    names = ("target", "machine", "work", "images", "startup_s", "finish_s", "load_ms", "compute_ms")
    values: dict[str, Any] = {name: row[name] for name in names}
    return Speed(**values, samples=json.loads(row["samples"]), date=format_iso(row["created_s"]))


def _now_s() -> int:
    return int(time.time())


def _broken(path: Path, error: sqlite3.Error) -> MachineError:
    copies = sorted(path.parent.glob(f"{path.name}*.bak"))
    mend = f"put back the copy {copies[-1]}" if copies else "move the file aside to start a new ledger"
    return MachineError(f"the ledger {path} cannot be used: {error}", f"{mend}; it was not changed")

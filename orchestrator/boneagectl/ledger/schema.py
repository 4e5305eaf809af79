"""The ledger's schema, one function a version; a file is migrated step by step, after a backup."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from boneagectl.errors import MachineError


def _v1(db: sqlite3.Connection) -> None:
    statements = (
        """create table accounts (
             name text primary key, cap_usd_micro integer, cap_s integer, created_s integer not null) strict""",
        """create table runs (
             run_id text primary key, config text not null, data text not null, pack text not null,
             bundle_sha256 text not null, created_s integer not null) strict""",
        """create table legs (
             leg_id text primary key, run_id text not null references runs, number integer not null,
             target text not null, state text not null, reason text not null default '',
             handle text not null default '', epoch integer not null default 0, epochs integer not null default 0,
             elapsed_s integer not null default 0, time_limit_s integer not null, created_s integer not null,
             unique (run_id, number)) strict""",
        "create index legs_open on legs (state)",
        """create table reservations (
             leg_id text primary key references legs, account text not null references accounts,
             usd_micro integer not null check (usd_micro >= 0), seconds integer not null check (seconds >= 0),
             created_s integer not null) strict""",
        "create index reservations_account on reservations (account)",
        """create table settlements (
             leg_id text primary key references reservations, usd_micro integer not null check (usd_micro >= 0),
             seconds integer not null check (seconds >= 0), basis text not null, created_s integer not null) strict""",
        """create table observations (
             id integer primary key, leg_id text not null references legs, state text not null,
             reason text not null, epoch integer not null, elapsed_s integer not null,
             usd_micro integer not null, created_s integer not null) strict""",
        "create index observations_leg on observations (leg_id)",
    )
    for statement in statements:
        db.execute(statement)


_SATURDAY_S = 172_800
_WEEK_S = 7 * 86_400
_KAGGLE_S = 30 * 3600
"""Weekly quota, refreshed on Saturday 00:00 UTC, until Kaggle says otherwise: kaggle.com/docs/efficient-gpu-usage."""


def _v2(db: sqlite3.Connection) -> None:
    """Accounts with a quota: `quota_s` every `window_s`, counted from any refresh, `refresh_s`."""
    for column in ("quota_s", "window_s", "refresh_s"):
        db.execute(f"alter table accounts add column {column} integer")
    db.execute(
        "insert into accounts (name, created_s) values ('kaggle', ?) on conflict do nothing", (int(time.time()),)
    )
    weekly = (_KAGGLE_S, _WEEK_S, _SATURDAY_S)
    db.execute("update accounts set quota_s = ?, window_s = ?, refresh_s = ? where name = 'kaggle'", weekly)


_AZURE_CAP_USD_MICRO = 100_000_000
"""The credit of Azure for Students for a year; also a safe first cap for other subscriptions."""


def _v3(db: sqlite3.Connection) -> None:
    """A prepaid credit by the last balance entered, and recurring charges by the day."""
    db.execute(
        """create table credits (
             account text primary key references accounts, left_usd_micro integer, told_s integer not null,
             ends_s integer) strict"""
    )
    db.execute(
        """create table standing (
             id integer primary key, account text not null references accounts, what text not null,
             usd_micro_per_day integer not null check (usd_micro_per_day >= 0), since_s integer not null,
             until_s integer) strict"""
    )
    db.execute(
        "insert into accounts (name, cap_usd_micro, created_s) values ('azure', ?, ?) on conflict do nothing",
        (_AZURE_CAP_USD_MICRO, int(time.time())),
    )


def _v4(db: sqlite3.Connection) -> None:
    """Relays: how many legs at most, how long each, and on which targets, in order of preference."""
    db.execute(
        """create table relays (
             run_id text primary key references runs, legs integer not null, time_limit_s integer not null,
             targets text not null) strict"""
    )


def _v5(db: sqlite3.Connection) -> None:
    """How fast each collected leg was."""
    db.execute(
        """create table speeds (
             leg_id text primary key references legs, target text not null, machine text not null, work text not null,
             images integer not null, startup_s real not null, finish_s real not null, load_ms real not null,
             compute_ms real not null, samples text not null, created_s integer not null) strict"""
    )
    db.execute("create index speeds_target on speeds (target, work)")


def _v6(db: sqlite3.Connection) -> None:
    """What a leg has cost so far; at which shares of a limit to notify, and what then; providers' own counts."""
    db.execute("alter table legs add column usd_micro integer not null default 0")
    db.execute("alter table accounts add column alert_at text not null default '[50, 80, 95]'")
    db.execute("alter table accounts add column at_cap text not null default 'refuse'")
    db.execute(
        """create table reconciliations (
             id integer primary key, account text not null references accounts, usd_micro integer not null,
             seconds integer not null, until_s integer not null, note text not null, created_s integer not null)
           strict"""
    )
    db.execute("create table told (what text primary key, again_s integer) strict")


Migration = Callable[[sqlite3.Connection], None]
MIGRATIONS: tuple[Migration, ...] = (_v1, _v2, _v3, _v4, _v5, _v6)


def migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Migrates the ledger at `path` to the schema of the last of `migrations`.

    Raises:
        MachineError: the file is of a newer version of boneagectl.
    """
    if _version(db) == len(migrations):
        return
    db.execute("begin immediate")  # of two processes that start at once only one migrates
    try:
        _upgrade(db, path, migrations)
        db.execute("commit")
    except BaseException:
        if db.in_transaction:
            db.execute("rollback")
        raise


def _upgrade(db: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    version = _version(db)
    if version > len(migrations):
        raise MachineError(
            f"the ledger {path} has schema {version}; this boneagectl knows {len(migrations)}",
            "upgrade boneagectl; nothing was changed",
        )
    if 0 < version < len(migrations):
        _back_up(path, version)
    for step in migrations[version:]:
        step(db)
    db.execute(f"pragma user_version = {len(migrations)}")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("pragma user_version").fetchone()[0])


def _back_up(path: Path, version: int) -> None:
    """A whole copy beside the ledger, by SQLite's own backup, before its schema changes."""
    copy = path.with_name(f"{path.name}.v{version}-{int(time.time())}.bak")
    with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
        source.backup(target)
    source.close()
    target.close()

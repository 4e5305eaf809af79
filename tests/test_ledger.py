"""The ledger's promise: worst case and spent never cross a cap, whoever else books and whatever dies."""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boneagectl.errors import LimitRefused, MachineError, UsageError
from boneagectl.ledger.schema import MIGRATIONS, migrate
from boneagectl.ledger.store import Ledger, opened
from boneagectl.models import Handle, LegState, Observation, Plan, Quota, format_iso
from support import environment, make_plan

RACERS, EACH = 16, 25
CENT = 10_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with opened(path) as ledger:
        yield ledger


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------ race
RACER = f"""
import sys
from pathlib import Path
from boneagectl.errors import LimitRefused
from boneagectl.ledger.store import opened
from support import make_plan
name, path = sys.argv[1], Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
booked = 0
for at in range({EACH}):
    with opened(path) as ledger:
        try:
            ledger.reserve(make_plan(f"racer-{{name}}-{{at}}", worst_s=60, worst_usd_micro={CENT}), "0" * 64)
            booked += 1
        except LimitRefused:
            pass
print(booked)
"""


def test_400_bookings_of_16_processes_stop_exactly_at_the_cap(path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(at), str(path)], env=environment(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for at in range(RACERS)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    with opened(path) as ledger:
        ledger.set_cap("local", 150 * CENT, None)
    said = [racer.communicate("go\n", timeout=60) for racer in racers]
    assert [err for _, err in said if err] == []
    assert sum(int(out) for out, _ in said) == 150
    with opened(path) as ledger:
        account = ledger.account("local")
        assert account.reserved_usd_micro == 150 * CENT
        assert len(ledger.runs()) == len(ledger.open_legs()) == 150


def test_16_processes_that_make_the_ledger_at_once_all_succeed(path: Path) -> None:
    script = "import sys; from pathlib import Path; from boneagectl.ledger.store import Ledger; sys.stdin.readline(); "
    script += "Ledger(Path(sys.argv[1])).close()"
    racers = [
        subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment(), text=True,
                         stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(RACERS)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert [racer.communicate(timeout=60)[1] for racer in racers] == [""] * RACERS
    assert {racer.returncode for racer in racers} == {0}


# ------------------------------------------------------------------------------------ arithmetic
def test_a_leg_costs_its_reservation_then_its_settlement(ledger: Ledger) -> None:
    ledger.reserve(make_plan("first-run", worst_s=3600, worst_usd_micro=90 * CENT), "0" * 64)
    assert ledger.leg("first-run-01").state is LegState.RESERVED
    ledger.attach("first-run-01", Handle("local", "first-run-01"))
    assert ledger.leg("first-run-01").state is LegState.QUEUED
    ledger.observe("first-run-01", Observation(LegState.RUNNING, "", 3, 24, 600, 15 * CENT))
    account = ledger.account("local")
    assert (account.reserved_usd_micro, account.reserved_s) == (90 * CENT, 3600)
    assert (account.spent_usd_micro, account.spent_s) == (0, 0)
    ledger.observe("first-run-01", Observation(LegState.COMPLETE, "", 24, 24, 1800, 45 * CENT))
    account = ledger.account("local")
    assert (account.reserved_usd_micro, account.reserved_s) == (0, 0)
    assert (account.spent_usd_micro, account.spent_s) == (45 * CENT, 1800)


def test_a_released_leg_gives_everything_back_and_says_why(ledger: Ledger) -> None:
    ledger.reserve(make_plan("first-run", worst_usd_micro=90 * CENT), "0" * 64)
    ledger.release("first-run-01", "the disk was full")
    account, leg = ledger.account("local"), ledger.leg("first-run-01")
    assert (account.reserved_usd_micro, account.spent_usd_micro) == (0, 0)
    assert (leg.state, leg.reason, leg.spent_usd_micro) == (LegState.RELEASED, "the disk was full", 0)


def test_an_attached_leg_is_not_released(ledger: Ledger) -> None:
    ledger.reserve(make_plan("first-run", worst_usd_micro=90 * CENT), "0" * 64)
    ledger.attach("first-run-01", Handle("local", "first-run-01"))
    ledger.release("first-run-01", "a mistake")
    assert ledger.leg("first-run-01").state is LegState.QUEUED
    assert ledger.account("local").reserved_usd_micro == 90 * CENT


@pytest.mark.parametrize("over", [state for state in LegState if state.is_over and state is not LegState.RELEASED])
def test_a_leg_that_is_over_never_changes_again(ledger: Ledger, over: LegState) -> None:
    ledger.reserve(make_plan("first-run", worst_usd_micro=90 * CENT), "0" * 64)
    ledger.attach("first-run-01", Handle("local", "first-run-01"))
    ledger.observe("first-run-01", Observation(over, "so it ended", 2, 24, 60, CENT))
    before = ledger.leg("first-run-01"), ledger.account("local")
    ledger.observe("first-run-01", Observation(LegState.RUNNING, "", 9, 24, 900, 9 * CENT))
    ledger.observe("first-run-01", Observation(LegState.COMPLETE, "", 24, 24, 900, 9 * CENT))
    ledger.attach("first-run-01", Handle("local", "another"))
    ledger.release("first-run-01", "late")
    assert (ledger.leg("first-run-01"), ledger.account("local")) == before


@pytest.mark.parametrize(
    ("cap_usd_micro", "cap_s", "fits"),
    [(90 * CENT, None, True), (90 * CENT - 1, None, False), (None, 3600, True), (None, 3599, False),
     (90 * CENT, 3599, False), (None, None, True), (0, None, False)],
)  # fmt: skip
def test_caps_in_dollars_and_hours(ledger: Ledger, cap_usd_micro: int | None, cap_s: int | None, fits: bool) -> None:
    ledger.set_cap("local", cap_usd_micro, cap_s)
    plan = make_plan("first-run", worst_s=3600, worst_usd_micro=90 * CENT)
    if fits:
        ledger.reserve(plan, "0" * 64)
    else:
        with pytest.raises(LimitRefused, match=r"account local: this may (cost|take)"):
            ledger.reserve(plan, "0" * 64)
    assert len(ledger.runs()) == fits
    assert ledger.account("local").reserved_usd_micro == 90 * CENT * fits


def test_spent_and_reserved_both_count_against_the_cap(ledger: Ledger) -> None:
    ledger.set_cap("local", 100, None)
    ledger.reserve(make_plan("spent-run", worst_usd_micro=60), "0" * 64)
    ledger.attach("spent-run-01", Handle("local", "spent-run-01"))
    ledger.observe("spent-run-01", Observation(LegState.PAUSED, "", 1, 2, 10, 40))
    ledger.reserve(make_plan("booked-run", worst_usd_micro=50), "0" * 64)
    with pytest.raises(LimitRefused):
        ledger.reserve(make_plan("third-run", worst_usd_micro=11), "0" * 64)
    ledger.reserve(make_plan("third-run", worst_usd_micro=10), "0" * 64)


def test_a_run_has_one_open_leg_and_its_numbers_in_order(ledger: Ledger) -> None:
    ledger.reserve(make_plan("first-run"), "0" * 64)
    for number in (2, 3):
        with pytest.raises(LimitRefused, match="another leg"):
            ledger.reserve(make_plan("first-run", number), "0" * 64)
    with pytest.raises(UsageError, match="already"):
        ledger.reserve(make_plan("first-run", 1), "0" * 64)
    ledger.release("first-run-01", "gone")
    ledger.reserve(make_plan("first-run", 2), "0" * 64)
    assert [leg.number for leg in ledger.find_run("first-run").legs] == [1, 2]


def test_runs_are_found_by_id_beginning_and_last(ledger: Ledger) -> None:
    for name in ("zebra-1", "apple-1", "apple-12"):
        ledger.reserve(make_plan(name), "0" * 64)
    assert ledger.find_run("zeb").run_id == "zebra-1"
    assert ledger.find_run("apple-1").run_id == "apple-1"
    assert ledger.find_run("last").run_id == "apple-12", "the newest, also within one second"
    assert [run.run_id for run in ledger.runs()] == ["apple-12", "apple-1", "zebra-1"]
    with pytest.raises(UsageError, match="could be apple-1, apple-12"):
        ledger.find_run("app")
    with pytest.raises(UsageError, match="no run 'pear'"):
        ledger.find_run("pear")


# ------------------------------------------------------------------------------------- the file
def version_of(path: Path) -> int:
    db = sqlite3.connect(path)
    try:
        return int(db.execute("pragma user_version").fetchone()[0])
    finally:
        db.close()


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_newer_schema_is_refused_and_the_file_unchanged(path: Path, journal: str) -> None:
    db = sqlite3.connect(path)
    db.execute(f"pragma journal_mode = {journal}")
    db.execute("create table future (x)")
    db.execute("pragma user_version = 99")
    db.commit()
    db.close()
    before = sha256(path)
    with pytest.raises(MachineError, match="schema 99; this boneagectl knows 6") as caught:
        Ledger(path)
    assert "upgrade" in caught.value.next_step
    assert sha256(path) == before


@pytest.mark.parametrize(
    "content", [b"this is no database, however long it is " * 200, b"SQLite format 3\0" + b"?" * 9000]
)
def test_a_corrupt_file_is_refused_and_untouched(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(MachineError, match="cannot be used"):
        Ledger(path)
    assert path.read_bytes() == content


def test_a_damaged_page_in_the_middle_is_a_machine_error(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve(make_plan("first-run"), "0" * 64)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(MachineError, match="cannot be used"), opened(path) as ledger:
        ledger.runs()


def test_a_folder_in_its_place_is_a_machine_error(path: Path) -> None:
    path.mkdir()
    with pytest.raises(MachineError, match="cannot be used"):
        Ledger(path)


def add_colour(db: sqlite3.Connection) -> None:
    db.execute("alter table runs add column colour text not null default 'gray'")


def break_down(db: sqlite3.Connection) -> None:
    db.execute("alter table runs add column colour text")
    raise sqlite3.OperationalError("the power went")


def test_a_migration_leaves_a_whole_backup(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve(make_plan("first-run"), "0" * 64)
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, path, (*MIGRATIONS, add_colour))
    assert db.execute("select run_id, colour from runs").fetchall() == [("first-run", "gray")]
    db.close()
    (backup,) = path.parent.glob("*.bak")
    assert (version_of(path), version_of(backup)) == (len(MIGRATIONS) + 1, len(MIGRATIONS))
    with opened(backup) as ledger:
        assert ledger.find_run("first-run").run_id == "first-run"


def test_a_migration_that_fails_leaves_the_old_schema(path: Path) -> None:
    Ledger(path).close()
    db = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="power"):
        migrate(db, path, (*MIGRATIONS, break_down))
    db.close()
    assert version_of(path) == len(MIGRATIONS)
    with opened(path) as ledger:
        assert ledger.runs() == []


def test_a_ledger_without_room_books_nothing(path: Path) -> None:
    Ledger(path).close()
    script = """
import resource, sys
from pathlib import Path
from boneagectl.errors import MachineError
from boneagectl.ledger.store import opened
from support import make_plan
with opened(Path(sys.argv[1])) as ledger:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        ledger.reserve(make_plan("first-run"), "0" * 64)
    except MachineError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], env=environment(), capture_output=True, text=True, timeout=30
    )
    assert "cannot be used" in done.stdout, done.stderr
    with opened(path) as ledger:
        assert ledger.runs() == []


def test_values_are_frozen(ledger: Ledger) -> None:
    account = ledger.set_cap("local", 5, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        account.cap_usd_micro = 6  # type: ignore[misc]


# ------------------------------------------------------------------------------------ weekly hours
HOUR_S, WEEK_S = 3600, 7 * 86_400
SATURDAY_S = 172_800 + 3000 * WEEK_S


def kaggle_plan(run_id: str, worst_s: int) -> Plan:
    plan = make_plan(run_id, worst_s=worst_s)
    return dataclasses.replace(plan, quote=dataclasses.replace(plan.quote, target="kaggle"))


def test_a_ledger_of_the_first_version_learns_of_weekly_hours(path: Path) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, path, MIGRATIONS[:1])
    db.execute("insert into accounts values ('kaggle', null, 7200, 1)")
    db.close()
    with opened(path) as ledger:
        account = ledger.account("kaggle")
    assert (account.cap_s, account.quota_s, account.limit_s) == (7200, 30 * HOUR_S, 7200)
    assert list(path.parent.glob("*.v1-*.bak"))


def test_hours_come_back_with_the_week_and_open_legs_count_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [SATURDAY_S + 6 * 86_400]  # a Friday
    monkeypatch.setattr("boneagectl.ledger.store._now_s", lambda: now[0])
    for name in ("over-run", "open-run"):
        ledger.reserve(kaggle_plan(name, 12 * HOUR_S), "0" * 64)
        ledger.attach(f"{name}-01", Handle("kaggle", f"alice/{name}-01/1"))
    ledger.observe("over-run-01", Observation(LegState.COMPLETE, elapsed_s=10 * HOUR_S))
    with pytest.raises(LimitRefused, match="8 h 00 min of the 30 h"):
        ledger.reserve(kaggle_plan("third-run", 9 * HOUR_S), "0" * 64)
    assert ledger.account("kaggle").refresh == format_iso(SATURDAY_S + WEEK_S)
    now[0] += 86_400 + 1
    account = ledger.account("kaggle")
    assert (account.spent_s, account.reserved_s) == (0, 12 * HOUR_S)
    ledger.reserve(kaggle_plan("third-run", 18 * HOUR_S), "0" * 64)


def test_the_provider_s_own_word_counts(ledger: Ledger) -> None:
    ledger.set_quota("kaggle", Quota(0, 0, 45 * HOUR_S, SATURDAY_S))
    assert ledger.account("kaggle").quota_s == 45 * HOUR_S
    before = ledger.account("kaggle").refresh
    ledger.set_quota("kaggle", Quota(0, 0, 45 * HOUR_S, 0))
    assert ledger.account("kaggle").refresh == before
    ledger.set_cap("kaggle", None, 5 * HOUR_S)
    assert ledger.account("kaggle").limit_s == 5 * HOUR_S


def test_a_leg_of_which_nobody_knows_how_long_it_ran_costs_the_most_it_can_have(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [SATURDAY_S]
    monkeypatch.setattr("boneagectl.ledger.store._now_s", lambda: now[0])
    for name, later_s, cost_s in (("short-run", 600, 600), ("long-run", 5 * HOUR_S, HOUR_S)):
        ledger.reserve(kaggle_plan(name, HOUR_S), "0" * 64)
        ledger.attach(f"{name}-01", Handle("kaggle", f"alice/{name}-01/1"))
        now[0] += later_s
        before = ledger.account("kaggle").spent_s
        ledger.observe(f"{name}-01", Observation(LegState.LOST, elapsed_s=None))
        assert ledger.account("kaggle").spent_s - before == cost_s


def test_the_lines_of_the_ledger_add_up_to_its_accounts(ledger: Ledger) -> None:
    """Whatever happened: each account's lines are its spent and reserved, in money and in time."""
    ledger.start_charge("local", "a cluster", 330_000)
    for at, over in enumerate((None, LegState.COMPLETE, LegState.LOST, LegState.RELEASED)):
        plan = make_plan(f"run-{at}", worst_usd_micro=1_000_000 + at, worst_s=3600 + at)
        ledger.reserve(plan, "0" * 64)
        if over is LegState.RELEASED:
            ledger.release(plan.leg_id, "=HYPERLINK()")
        elif over:
            ledger.attach(plan.leg_id, Handle("local", plan.leg_id))
            ledger.observe(plan.leg_id, Observation(over, "", 1, 3, 100, 123_456))
    account, lines = ledger.account("local"), ledger.entries()
    assert sum(line.usd_micro for line in lines) == account.spent_usd_micro + account.reserved_usd_micro
    assert sum(line.seconds for line in lines) == account.spent_s + account.reserved_s
    assert [line.kind for line in lines if line.run_id == "run-1"] == ["reserved", "returned", "spent"]


def test_what_is_free_lasts_as_long_as_the_last_week_says(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ledger.set_cap("local", 100_000_000, None).lasts_days is None
    plan = make_plan("run-1", worst_usd_micro=20_000_000)
    ledger.reserve(plan, "0" * 64)
    ledger.attach(plan.leg_id, Handle("local", plan.leg_id))
    ledger.observe(plan.leg_id, Observation(LegState.COMPLETE, "", 1, 3, 100, 10_000_000))
    account = ledger.account("local")
    assert (account.week_usd_micro, account.lasts_days) == (10_000_000, 63.0)
    now_s = time.time
    monkeypatch.setattr("boneagectl.ledger.store.time.time", lambda: now_s() + 8 * 86_400)
    assert ledger.account("local").lasts_days is None

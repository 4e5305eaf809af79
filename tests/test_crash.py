"""The command line dies by kill -9 at every line it runs from booking to attaching; nothing is lost or done twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from boneagectl.ledger.store import opened
from boneagectl.models import LegState
from support import Cli, end_leg, environment, make_pack, starts, wait_for

# Runs the real command line; dies at the Nth line of the watched modules, or counts them where N is 0.
DRIVER = """
import os, signal, sys
from boneagectl.__main__ import run

WATCHED = ("boneagectl/runs.py", "targets/local.py", "ledger/store.py", "boneagectl/locks.py", "contract.py")
wanted, seen, is_begun = int(sys.argv[1]), 0, False

def trace(frame, event, argument):
    global seen, is_begun
    path = frame.f_code.co_filename
    if not path.endswith(WATCHED):
        return None
    if path.endswith("boneagectl/runs.py") and frame.f_code.co_name == "submit":
        is_begun = True
    if is_begun and event == "line":
        seen += 1
        if seen == wanted:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace

sys.settrace(trace)
code = run(sys.argv[2:])
sys.settrace(None)
print(f"lines {seen}", file=sys.stderr)
sys.exit(code)
"""
BATCH, CORES = 8, 3
PARTS = 3
"""Tests that share the lines, so that the cores share the tests."""


def drive(at_line: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DRIVER, str(at_line), *arguments]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
    )


def check_books(home: Path) -> None:
    """What is open is reserved, what is over is settled, and nothing costs both."""
    with opened(home / "ledger.db") as ledger:
        legs = [leg for run in ledger.runs() for leg in run.legs]
        account = ledger.account("local")
    assert account.reserved_s == sum(leg.time_limit_s for leg in legs if not leg.state.is_over)
    assert account.spent_s == sum(leg.elapsed_s for leg in legs if leg.state.is_over)
    assert all((leg.spent_usd_micro is not None) == leg.state.is_over for leg in legs)
    assert all(leg.handle or leg.state is LegState.RELEASED for leg in legs)


@pytest.fixture
def busy(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose legs are at work for as long as a test looks at them."""
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    monkeypatch.setenv("FAKE_EPOCH_S", "0.2")
    return project


def count_lines(home: Path) -> int:
    done = drive(0, "submit", "--quiet", "--name", "counted-run", "--time-limit", "1m")
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split("lines ")[1])


@pytest.mark.parametrize("part", range(PARTS))
def test_killed_at_every_line_of_a_submit(part: int, busy: Path, home: Path, cli: Cli) -> None:
    total = count_lines(home)
    assert total > 60
    cli("stop", "counted-run", "--yes")
    states = []
    lines = range(1 + part, total + 1, PARTS)
    for first in range(0, len(lines), BATCH):
        at_lines = lines[first : first + BATCH]
        with ThreadPoolExecutor(CORES) as pool:
            for died in pool.map(submit_and_die, at_lines):
                # A line fewer than counted: some file was there already.
                assert died.returncode in (-signal.SIGKILL, 0), died.stderr
        listed = {run["run_id"]: run["state"] for run in cli("ls", "--json", "--limit", 1000).json["runs"]}
        check_books(home)
        states += [check_fate(home, f"killed-{at}", listed.get(f"killed-{at}", "unbooked")) for at in at_lines]
    assert {"unbooked", "released", "attached"} == set(states)
    assert max(starts(home).values()) == 1  # one that was stopped while it started may have noted nothing
    runs = cli("ls", "--json", "--limit", 1000).json["runs"]
    assert {run["state"] for run in runs} <= {"paused", "lost", "failed", "released"}
    check_books(home)


def submit_and_die(at: int) -> subprocess.CompletedProcess[str]:
    return drive(at, "submit", "--quiet", "--name", f"killed-{at}", "--time-limit", "1m")


def check_fate(home: Path, name: str, state: str) -> str:
    """One leg, and no more, where the ledger says there is one; none where it does not."""
    leg = f"{name}-01"
    if state in ("unbooked", "released"):
        assert leg not in starts(home), f"{state}, and yet it ran"
        return state
    assert state in ("queued", "running")
    wait_for(lambda: starts(home).get(leg) == 1)
    end_leg(home, leg)
    return "attached"


def test_after_any_of_it_the_run_can_go_on(busy: Path, home: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    total = count_lines(home)
    monkeypatch.setenv("FAKE_EPOCHS", "2")
    monkeypatch.setenv("FAKE_EPOCH_S", "0.01")
    cli("stop", "counted-run", "--yes")
    for at in range(1, total + 1, max(1, total // 8)):
        name = f"killed-{at}"
        drive(at, "submit", "--quiet", "--name", name, "--time-limit", "1m")
        known = {run["run_id"]: run["state"] for run in cli("ls", "--json").json["runs"]}
        if name not in known:
            cli("submit", "--name", name, "--time-limit", "1m")
        elif known[name] == "released":
            cli("resume", name, "--time-limit", "1m")
        cli("watch", name, "--every", 0.1)
        assert cli("show", name, "--json").json["state"] == "complete"
        assert sum(count for leg, count in starts(home).items() if leg.startswith(f"{name}-0")) == 1
        check_books(home)


def test_killed_at_every_line_of_a_reconciliation(busy: Path, home: Path, cli: Cli) -> None:
    """A booked leg that runs but is not attached; whoever looks next may die as well."""
    total = count_lines(home)
    assert drive(total - 12, "submit", "-q", "--name", "half-done", "--time-limit", "1m").returncode < 0
    reconciler = DRIVER.replace('== "submit"', '== "reconcile"')
    for at in range(1, 40, 3):
        command = [sys.executable, "-c", reconciler, str(at), "ls"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30)
        assert done.returncode == -signal.SIGKILL
    assert {run["run_id"] for run in cli("ls", "--json").json["runs"]} == {"half-done", "counted-run"}
    check_books(home)
    assert max(starts(home).values()) == 1


def test_two_at_once_reconcile_and_submit_without_a_double(busy: Path, home: Path, cli: Cli) -> None:
    make_pack(busy / "pack")
    command = [sys.executable, "-m", "boneagectl", "submit", "-q", "--name", "same-name", "--time-limit", "1m"]
    settings: dict[str, Any] = {"env": environment(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    racers = [subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, **settings) for _ in range(6)]
    lookers = [subprocess.Popen([*command[:3], "ls"], text=True, **settings) for _ in range(4)]
    said = [racer.communicate(timeout=60) for racer in racers]
    assert all("Traceback" not in err for _, err in [looker.communicate(timeout=60) for looker in lookers])
    assert sorted(racer.returncode for racer in racers)[0] == 0
    assert [racer.returncode for racer in racers].count(0) == 1, said
    assert {racer.returncode for racer in racers} <= {0, 2, 5}
    wait_for(lambda: starts(home) == {"same-name-01": 1})
    cli("ls")
    check_books(home)

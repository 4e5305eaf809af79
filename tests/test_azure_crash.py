"""kill -9 at every remote call of a submit, and twelve that submit at once: one job or none, and never over the cap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from boneagectl.ledger.store import opened
from boneagectl.models import LegState
from emulators.azure import Azure, Fault
from support import Cli, environment, wait_for

# Imports the SDK once, then runs each command line that it reads in a child process and prints its number.
SERVER = """
import os, shlex, sys
import azure.ai.ml, azure.identity, azure.storage.blob
from boneagectl.__main__ import run
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        os._exit(run(shlex.split(line)))
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Commands:
    """Command lines in processes of their own, without their seconds of imports."""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._server = subprocess.Popen([sys.executable, "-c", SERVER], env=environment(), stdin=pipe, stdout=pipe,
                                        stderr=subprocess.DEVNULL, text=True, bufsize=1)  # fmt: skip
        assert self._read() == "ready"

    def _read(self) -> str:
        assert self._server.stdout
        return self._server.stdout.readline().strip()

    def start(self, line: str) -> int:
        """The process that does it."""
        assert self._server.stdin
        self._server.stdin.write(f"{line}\n")
        return int(self._read())

    def end(self) -> int:
        """Its exit code, or minus the signal that ended it."""
        return int(self._read())

    def close(self) -> None:
        self._server.kill()
        self._server.wait()
        for stream in (self._server.stdin, self._server.stdout):
            assert stream
            stream.close()


@pytest.fixture
def busy(project: Path, azure: Azure, monkeypatch: pytest.MonkeyPatch) -> Azure:
    (project / "boneage.toml").write_text('target = "azure"\ntime_limit = "30m"\ntrain.epochs = 3\n')
    monkeypatch.setenv("FAKE_EPOCHS", "1000")
    monkeypatch.setenv("FAKE_EPOCH_S", "0.5")
    return azure


@pytest.fixture
def commands(busy: Azure) -> Iterator[Commands]:
    made = Commands()
    yield made
    made.close()


def check_books(home: Path, azure: Azure) -> None:
    """Every job belongs to an open leg, every attached leg has its job, and what is open is reserved."""
    with opened(home / "ledger.db") as ledger:
        legs = [leg for run in ledger.runs() for leg in run.legs]
        account = ledger.account("azure")
    open_legs = {leg.leg_id: leg for leg in legs if not leg.state.is_over}
    assert {leg_id for leg_id, leg in open_legs.items() if leg.handle} == set(azure.jobs.all)
    assert account.reserved_usd_micro == sum(leg.reserved_usd_micro for leg in open_legs.values())


@pytest.mark.parametrize("kind", ["hang", "hang_after"])
def test_kill_9_at_every_remote_call(
    busy: Azure, commands: Commands, cli: Cli, home: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call once before and once after it did its work; `ls` then finds the job, or knows that none will come."""
    busy.calls.clear()
    commands.start("submit --yes -q --name counted-run")
    assert commands.end() == 0
    calls = list(busy.calls)
    assert [call for call in calls if call.startswith("PUT jobs/")] == ["PUT jobs/counted-run-01"]
    now_s, later_s = time.time, [0.0]
    monkeypatch.setattr("boneagectl.runs.time.time", lambda: now_s() + later_s[0])
    states = set()
    for at in range(len(calls)):
        states.add(_die_at(busy, commands, cli, f"run-{at:02d}", at, kind, later_s))
        check_books(home, busy)
    found = {LegState.QUEUED, LegState.RUNNING} & states
    assert states - found == {"none", LegState.RELEASED}
    assert bool(found) == (kind == "hang_after"), "the last call is the one that creates the job"


def _die_at(azure: Azure, commands: Commands, cli: Cli, name: str, at: int, kind: str, later_s: list[float]) -> str:
    """What became of a submit that was killed in its call number `at`."""
    seen, later_s[0] = len(azure.calls), 0.0
    azure.faults.append(Fault("*", kind, after=at))
    process = commands.start(f"submit --yes -q --name {name} --set train.seed={at}")  # another bundle: uploaded too
    wait_for(lambda: not azure.faults or not _is_alive(process))
    wait_for(lambda: len(azure.calls) > seen + at or not _is_alive(process))
    time.sleep(0.05)  # what is done before the answer hangs is done
    os.kill(process, signal.SIGKILL)
    assert commands.end() == -signal.SIGKILL
    azure.faults.clear()
    azure.release()
    later_s[0] = 601.0
    runs = cli("ls", "--json").json["runs"]
    state = next((str(run["state"]) for run in runs if run["run_id"] == name), "none")
    assert (state in ("none", LegState.RELEASED)) == (f"{name}-01" not in azure.jobs.all), (at, state)
    return state


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_twelve_at_once_never_reserve_more_than_is_left(busy: Azure, cli: Cli, home: Path, project: Path) -> None:
    cli("budget", "set", "azure", "--cap-usd", 5)
    command = [sys.executable, "-m", "boneagectl", "submit", "-q", "--yes", "--name"]
    racers = [
        subprocess.Popen([*command, f"racer-{at:02d}"], env=environment(), cwd=project, stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for at in range(12)
    ]  # fmt: skip
    most, stop = [0], threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            with opened(home / "ledger.db") as ledger:
                account = ledger.account("azure")
            most[0] = max(most[0], account.spent_usd_micro + account.reserved_usd_micro)

    watcher = threading.Thread(target=look)
    watcher.start()
    ends = [(racer.communicate(timeout=120)[1], racer.returncode) for racer in racers]
    stop.set()
    watcher.join()
    with opened(home / "ledger.db") as ledger:
        worst = max(leg.reserved_usd_micro for leg in ledger.open_legs())
    won = sum(code == 0 for _, code in ends)
    assert {code for _, code in ends} == {0, 5}, ends
    assert won == len(busy.jobs) == 5_000_000 // worst
    assert most[0] <= 5_000_000
    check_books(home, busy)

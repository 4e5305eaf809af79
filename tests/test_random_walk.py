"""Random steps through the command line, against emulators that execute the jobs and fail at random.

tests/test_ledger_properties.py has more steps and no wire.
"""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from boneagectl import locks
from boneagectl.ledger.store import opened
from boneagectl.models import LegState, Run
from emulators import azure as azures
from emulators import kaggle as kaggles
from emulators.azure import Azure
from emulators.kaggle import Kaggle
from support import KAGGLE_PACK, Cli, end_leg, environment, starts

TARGETS = ("local", "kaggle", "azure")
IN_WORDS = (0, 2, 3, 4, 5, 6, 8, 9, 10, 11)
FAULTS = ("429", "500", "reset", "truncate", "500_after", "reset_after")
"""Not 404 and 403: who is told twice that a job is not there believes it, and settles all that was booked."""
STEPS = int(os.environ.get("BONEAGE_WALK", "60"))
WEIGHTS = {"submit": 5, "cut_off": 2, "watch": 5, "resume": 2, "stop": 1, "lose": 3, "fault": 4, "storm": 3, "calm": 3,
           "quota": 1, "reconcile": 1}  # fmt: skip


@dataclass
class Walk:
    """One person, three targets, and what befalls them."""

    cli: Cli
    home: Path
    azure: Azure
    kaggle: Kaggle
    chance: random.Random
    done: list[str] = field(default_factory=list)

    def step(self) -> None:
        what = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        getattr(self, what)()
        self.done.append(what)

    def runs(self) -> list[Run]:
        with opened(self.home / "ledger.db") as ledger:
            return ledger.runs()

    def some_run(self) -> Run | None:
        runs = self.runs()
        return self.chance.choice(runs) if runs else None

    def some_target(self) -> str:
        return self.chance.choice(TARGETS)

    # ---------------------------------------------------------------------------------- a person
    def new_run(self) -> list[str]:
        name, limit = f"walk-{len(self.done):03d}", self.chance.choice(("30m", "2h", "9h"))
        words = ["submit", "--name", name, "--target", self.some_target(), "--time-limit", limit, "--yes", "-q"]
        if self.chance.random() < 0.6:
            words += ["--legs", str(self.chance.randint(2, 4)), "--then", f"{self.some_target()},{self.some_target()}"]
        return words

    def submit(self) -> None:
        self.cli(*self.new_run(), code=IN_WORDS)

    def cut_off(self) -> None:
        """A submit by kill -9, at any of its moments."""
        command = [sys.executable, "-m", "boneagectl", *self.new_run()]
        process = subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(self.chance.uniform(0.2, 1.5))
        process.kill()
        process.wait()

    def watch(self) -> None:
        self.cli("watch", "--all", "--once", "-q", code=IN_WORDS)

    def resume(self) -> None:
        if run := self.some_run():
            self.cli("resume", run.run_id, "--target", self.some_target(), "--yes", "-q", code=IN_WORDS)

    def stop(self) -> None:
        if run := self.some_run():
            self.cli("stop", run.run_id, "--yes", "-q", code=IN_WORDS)

    def reconcile(self) -> None:
        self.cli("budget", "reconcile", code=IN_WORDS)

    # ---------------------------------------------------------------------------- the other sides
    def lose(self) -> None:
        """A machine goes down."""
        if self.azure.running() and self.chance.random() < 0.5:
            self.azure.preempt(self.chance.choice(self.azure.running()))
        elif running := self.kaggle.running():
            self.kaggle.preempt(self.chance.choice(running))
        elif alive := [lock.parent.name for lock in (self.home / "local").glob("*/alive.lock") if locks.is_held(lock)]:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has not quite begun, or has just ended
                end_leg(self.home, self.chance.choice(sorted(alive)))

    def fault(self) -> None:
        kind, times = self.chance.choice(FAULTS), self.chance.randint(1, 3)
        if self.chance.random() < 0.5:
            self.azure.faults.append(azures.Fault("*", kind, times=times, after=self.chance.randint(0, 6)))
        else:
            self.kaggle.faults.append(kaggles.Fault("*", kind, times=times, after=self.chance.randint(0, 6)))

    def storm(self) -> None:
        """A submit that does its work, with the answer and all that is asked about it lost."""
        words = self.new_run()
        words[words.index("--target") + 1] = self.chance.choice(("azure", "kaggle"))
        lost, unseen = azures.Fault("PUT jobs/*", "500_after", 10), azures.Fault("GET jobs/*", "500", 40, after=1)
        self.azure.faults += [lost, unseen]
        self.kaggle.faults += [kaggles.Fault("SaveKernel", "500_after"), kaggles.Fault("GetKernel", "500", 30)]
        self.cli(*words, code=IN_WORDS)
        self.calm()

    def calm(self) -> None:
        self.azure.faults.clear()
        self.kaggle.faults.clear()

    def quota(self) -> None:
        """Hours that were used without us, and hours that come back."""
        self.kaggle.quota_used_s = self.chance.choice((0, 20, 29)) * 3600

    # --------------------------------------------------------------------------------- what holds
    def check(self) -> None:
        """The ledger, the other sides and what runs there agree; nothing began twice; no cap is crossed."""
        assert all(times == 1 for times in starts(self.home).values()), "a leg was started twice"
        with opened(self.home / "ledger.db") as ledger:
            legs = [leg for run in ledger.runs() for leg in run.legs]
            accounts = {name: ledger.account(name) for name in TARGETS}
        for name, running, made in (("azure", self.azure.running(), set(self.azure.jobs.all)),
                                    ("kaggle", self.kaggle.running(), set(self.kaggle.kernels))):  # fmt: skip
            own = [leg for leg in legs if leg.target == name]
            assert set(running) <= {leg.leg_id for leg in own if not leg.state.is_over}, name
            assert made <= {leg.leg_id for leg in own if leg.state is not LegState.RELEASED}, name
            booked = sum(leg.reserved_usd_micro for leg in own if not leg.state.is_over)
            assert accounts[name].reserved_usd_micro == booked
        azure = accounts["azure"]
        assert azure.spent_usd_micro + azure.reserved_usd_micro <= (azure.cap_usd_micro or 0)


@pytest.fixture
def walk(
    project: Path, home: Path, azure: Azure, kaggle: Kaggle, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], Walk]:
    (project / "boneage.toml").write_text(
        f'train.epochs = 6\ntargets.kaggle.dataset = "{KAGGLE_PACK}"\ntargets.kaggle.username = "alice"\n'
    )
    for name, value in (("FAKE_EPOCHS", "6"), ("FAKE_EPOCH_S", "0.5")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("boneagectl.targets.http.TIMEOUT_S", (0.5, 0.5))
    return lambda seed: Walk(cli, home, azure, kaggle, random.Random(seed))  # noqa: S311


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_whatever_happens_the_books_are_right(walk: Callable[[int], Walk]) -> None:
    seed = int(os.environ.get("BONEAGE_SEED") or secrets.randbits(32))
    print(f"BONEAGE_SEED={seed}", file=sys.__stderr__)
    one = walk(seed)
    one.cli("ls")
    for _ in range(STEPS):
        one.step()
        one.check()
    one.calm()
    one.kaggle.quota_used_s = 0
    for _ in range(3):
        one.watch()
        one.check()
    ended = Counter(f"{leg.target} {leg.state}" for run in one.runs() for leg in run.legs)
    print(dict(sorted(ended.items())), file=sys.__stderr__)
    assert {key.split()[0] for key in ended} == set(TARGETS)

"""Random steps on all targets at once: never a cent over, never an unknown machine, never an epoch lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from boneagectl import bills, bundle, config, monitor
from boneagectl import runs as runs_module
from boneagectl.config import Config, Setting
from boneagectl.errors import BoneagectlError
from boneagectl.ledger.accounts import Account, Entry
from boneagectl.ledger.store import Ledger
from boneagectl.models import Bundle, Leg, LegState, Relay, Run
from boneagectl.paths import Home
from simulated import Killed, Simulated, World
from support import make_pack

TARGETS = ("local", "kaggle", "colab", "azure")
WHERE = st.sampled_from((*TARGETS, "azure"))
STEPS = int(os.environ.get("BONEAGE_LEDGER_STEPS", "10000"))
PER_RUN = 50
HOURS = st.sampled_from(("20m", "1h", "3h", "12h"))
FAULT = st.sampled_from(("", "", "", "killed before", "killed after", "lost before", "lost after", "refused"))

DOES = st.sampled_from(
    (
        *("submit", "watch", "time") * 2,
        "watch",
        "resume",
        "ls",
        "stop",
        "preempt",
        "network",
        "price",
        "cap",
        "reconcile",
    )
)


class LedgerMachine(RuleBasedStateMachine):
    """Two people with one ledger, four targets with caps, and a clock that jumps."""

    @initialize(cap_usd=st.sampled_from((2, 5, 20)), cap_hours=st.sampled_from((2, 10, 100)))
    def begin(self, cap_usd: int, cap_hours: int) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="ledger-"))
        flags = {"data.pack": str(make_pack(self.place / "pack")), "train.epochs": 12}
        self.settings = config.load(flags=flags, start=self.place).settings
        self.world, self.home = World(), Home(self.place / "home")
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("time.time", lambda: self.world.now_s)
        self.patch.setattr(runs_module, "get", lambda name, home, config: Simulated(self.world, name))
        # These cost more time here than everything else, and change nothing.
        self.patch.setattr(bundle, "collect_provenance", lambda: ({"git_commit": None}, b""))
        self.patch.setattr(bundle, "build", lambda spec: Bundle(b"", "0" * 64, ()))
        self.home.create()
        self.ledgers = [Ledger(self.home.ledger), Ledger(self.home.ledger)]
        self.ledgers[0].set_cap("azure", cap_usd * 1_000_000, None)
        self.ledgers[0].set_cap("local", None, cap_hours * 3600)
        self.reached: dict[str, int] = {}

    def teardown(self) -> None:
        for ledger in getattr(self, "ledgers", []):
            ledger.close()
        if hasattr(self, "patch"):
            self.patch.undo()
            shutil.rmtree(self.place)

    def flow(self, who: int, where: str, limit: str, is_firm: bool) -> runs_module.Workflow:
        """A time limit that is not firm is cut to what is left."""
        given = {**self.settings, "target": Setting(where, "flag")}
        given["time_limit"] = Setting(limit, "flag" if is_firm else "a file")
        return runs_module.Workflow(self.home, Config(given), self.ledgers[who])

    def runs(self) -> list[Run]:
        return self.ledgers[0].runs()

    def attempt(self, call: Callable[..., object], *arguments: object) -> None:
        """Whatever it is refused with is in words; a kill is no word."""
        with suppress(BoneagectlError, Killed):
            call(*arguments)

    # ------------------------------------------------------------------------------------- steps
    @rule(does=DOES, who=st.integers(0, 1), at=st.integers(0, 99), where=WHERE, limit=HOURS, fault=FAULT)
    def step(self, does: str, who: int, at: int, where: str, limit: str, fault: str) -> None:
        """One rule for all that can happen: of many, hypothesis leaves some out of most examples."""
        self.world.next_fault = fault if does in ("submit", "resume", "watch") else ""
        runs = self.runs()
        if does in ("submit", "time", "network", "price", "cap", "ls", "reconcile"):
            getattr(self, does)(self.flow(who, where, limit, at % 3 == 0), at, where)
        elif runs:
            getattr(self, does)(self.flow(who, where, limit, at % 3 == 0), runs[at % len(runs)])
        self.world.next_fault = ""

    def submit(self, flow: runs_module.Workflow, at: int, where: str) -> None:
        def go() -> None:
            prepared = flow.preflight(flow.prepare())
            flow.submit(prepared)
            if at % 2:
                relay = Relay(2 + at % 5, prepared.plan.spec.time_limit_s, (where, *TARGETS))
                flow.ledger.set_relay(prepared.plan.run_id, relay)

        self.attempt(go)

    def resume(self, flow: runs_module.Workflow, run: Run) -> None:
        self.attempt(lambda: flow.submit(flow.prepare_resume(run)))

    def watch(self, flow: runs_module.Workflow, run: Run) -> None:
        self.attempt(monitor.poll_run, flow, run.run_id)

    def reconcile(self, flow: runs_module.Workflow, at: int, where: str) -> None:
        """Azure's bill, which may be a day late."""
        self.world.bill_late_s = (at % 2) * 86_400
        self.attempt(bills.reconcile, flow)

    def stop(self, flow: runs_module.Workflow, run: Run) -> None:
        self.attempt(flow.stop, run)

    def preempt(self, flow: runs_module.Workflow, run: Run) -> None:
        if run.latest.leg_id in self.world.jobs:
            Simulated(self.world, run.latest.target).end(run.latest.leg_id, "lost")

    def ls(self, flow: runs_module.Workflow, at: int, where: str) -> None:
        self.attempt(flow.refresh)

    def time(self, flow: runs_module.Workflow, at: int, where: str) -> None:
        """From a minute to more than a week."""
        self.world.now_s += 60 * (1, 15, 60, 60, 24 * 60, 8 * 24 * 60)[at % 6]

    def network(self, flow: runs_module.Workflow, at: int, where: str) -> None:
        self.world.is_reachable = at % 3 > 0

    def price(self, flow: runs_module.Workflow, at: int, where: str) -> None:
        self.world.rate_usd_micro = (100_000, 600_000, 3_000_000)[at % 3]

    def cap(self, flow: runs_module.Workflow, at: int, where: str) -> None:
        account = flow.ledger.account(where)
        if where == "azure":
            used = account.spent_usd_micro + account.reserved_usd_micro
            flow.ledger.set_cap(where, used + at * 100_000, None)
        else:
            flow.ledger.set_cap(where, None, account.spent_s + account.reserved_s + (at % 50) * 3600)

    # --------------------------------------------------------------------------------- what holds
    @invariant()
    def every_promise_holds(self) -> None:
        """Of the ledger as the other process reads it now."""
        ledger = self.ledgers[1]
        accounts, runs, lines = {name: ledger.account(name) for name in TARGETS}, ledger.runs(), ledger.entries()
        self.never_over_a_cap(accounts)
        self.every_machine_is_known_and_none_is_made_twice({leg.leg_id: leg for run in runs for leg in run.legs})
        self.what_is_counted_is_never_less_than_what_was_really_used(accounts["azure"])
        self.no_epoch_is_lost(runs)
        self.the_lines_explain_the_accounts(accounts, lines)

    def never_over_a_cap(self, accounts: dict[str, Account]) -> None:
        for account in accounts.values():
            if account.cap_usd_micro is not None:
                assert account.spent_usd_micro + account.reserved_usd_micro <= account.cap_usd_micro
            if account.limit_s is not None:
                assert account.spent_s + account.reserved_s <= account.limit_s
            assert account.reserved_usd_micro >= 0

    def every_machine_is_known_and_none_is_made_twice(self, legs: dict[str, Leg]) -> None:
        assert len(self.world.created) == len(set(self.world.created))
        for job in self.world.running():
            assert not legs[job.leg_id].state.is_over, f"{job.leg_id} runs and is thought to be over"
        for leg in legs.values():
            assert leg.state is not LegState.RELEASED or leg.leg_id not in self.world.jobs
        for job in self.world.jobs.values():
            assert job.cost_usd_micro(self.world.now_s) <= legs[job.leg_id].reserved_usd_micro + 1

    def what_is_counted_is_never_less_than_what_was_really_used(self, azure: Account) -> None:
        rounding = sum(1 + job.rate / 3600 for job in self.world.jobs.values())
        used = self.world.used_usd_micro(self.world.now_s)
        assert used <= azure.spent_usd_micro + azure.reserved_usd_micro + rounding

    def no_epoch_is_lost(self, runs: list[Run]) -> None:
        """A next leg begins where the one before had come to, as far as it left anything."""
        for run in runs:
            reached = 0
            for leg in run.legs:
                if job := self.world.jobs.get(leg.leg_id):
                    assert job.first == reached or not reached, (leg.leg_id, job.first, reached)
                    reached = max(reached, job.epoch_at(self.world.now_s))

    def the_lines_explain_the_accounts(self, accounts: dict[str, Account], lines: list[Entry]) -> None:
        for account in accounts.values():
            own = [line for line in lines if line.account == account.name]
            assert sum(line.usd_micro for line in own) == account.spent_usd_micro + account.reserved_usd_micro


TestLedgerProperties = LedgerMachine.TestCase
TestLedgerProperties.settings = settings(
    max_examples=max(1, STEPS // PER_RUN), stateful_step_count=PER_RUN, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
)  # fmt: skip

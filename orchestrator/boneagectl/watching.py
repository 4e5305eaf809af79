"""Looking at runs until they are over: each look guards the limits, and hands a run on that is to go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from boneagectl import guarding, relaying
from boneagectl.errors import Unreachable
from boneagectl.guarding import Act
from boneagectl.records import Leg, Relay, Run, Snapshot

if TYPE_CHECKING:
    from boneagectl.workflow import Workflow

_WAIT_S = 600
"""Between two tries where nobody takes the next leg."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a run saw and did. `leg` is the one that was looked at; `is_over` means that nothing follows.

    `said` is for people; `trouble` is why the target could not be asked, and then the rest is what the ledger knew.
    """

    run: Run
    leg: Leg
    seen: Snapshot
    said: tuple[str, ...]
    is_over: bool
    wait_s: float
    trouble: str = ""


def step(flow: Workflow, run_id: str) -> Look:
    """Looks at the run's latest leg, does what is due, and has the run go on where that was agreed."""
    run = flow.ledger.find_run(run_id)
    leg, wait_s = run.latest, flow.target(run.latest.target).capabilities.poll_every_s
    try:
        seen, said = guarding.guard(flow, run, flow.look(run))
    except Unreachable as error:
        trouble = f"cannot look now: {error.message}"
        known = Snapshot(leg.state, leg.reason, leg.epoch, leg.epochs, leg.elapsed_s)
        return Look(run, leg, replace(known, reason=trouble), (), leg.state.is_over, wait_s, trouble)
    run, relay = flow.ledger.find_run(run_id), flow.ledger.relay(run_id)
    if relay is None or not relaying.is_due(run, relay):
        return Look(run, leg, seen, said, seen.state.is_over, wait_s)
    more, wait_s = _handed_on(flow, run, relay, wait_s)
    return Look(run, leg, seen, (*said, *more), False, wait_s)


def _handed_on(flow: Workflow, run: Run, relay: Relay, wait_s: float) -> tuple[list[str], float]:
    """What became of it, and when to look again: soon at the next leg, later where nobody took it."""
    passed = relaying.pass_on(flow, run, relay)
    said = list(relaying.words(passed))
    if passed.leg_id:
        return said, wait_s
    act = Act(f"{run.latest.leg_id} waits", f"{run.run_id}: nobody takes its next leg: {'; '.join(passed.troubles)}")
    told = guarding.tell(flow, run, replace(act, is_said=True))
    return [*said, *told], _WAIT_S


def follow(flow: Workflow, run_id: str, every_s: float | None) -> Iterator[Look]:
    """Look after look, until the run is over."""
    while True:
        look = step(flow, run_id)
        yield look
        if look.is_over:
            return
        time.sleep(every_s or look.wait_s)


def rounds(flow: Workflow, every_s: float | None) -> Iterator[list[Look]]:
    """Rounds of looks at every run that is at work or is to go on, until none is."""
    while run_ids := unfinished(flow):
        looks = [step(flow, run_id) for run_id in run_ids]
        yield looks
        if all(look.is_over for look in looks):
            return
        time.sleep(every_s or min(look.wait_s for look in looks))


def unfinished(flow: Workflow) -> list[str]:
    """The runs at work, and those that stopped short and may go on, oldest first."""
    runs = [flow.ledger.find_run(run_id) for run_id in flow.ledger.not_settled()]
    return [run.run_id for run in runs
            if not run.latest.state.is_over or relaying.is_due(run, flow.ledger.relay(run.run_id))]  # fmt: skip

"""Looking at runs until they are over: each look guards the limits, and hands a run on that is to go on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boneagectl import alerts
from boneagectl import relay as relay_module
from boneagectl.alerts import Action
from boneagectl.errors import BoneagectlError, SubmitUncertain, Unreachable
from boneagectl.models import Leg, LegState, Observation, Run
from boneagectl.relay import HandOver

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_WAIT_S = 600
"""Between two tries where nobody takes the next leg."""


@dataclass(frozen=True, slots=True)
class PollResult:
    """What one look at a run saw and did. `leg` is the one that was looked at; `is_over` means that nothing follows.

    `said` is for people; `trouble` is why the target could not be asked, and then the rest is what the ledger knew.
    The next look is due in `wait_s`, or sooner if somebody wishes so; but not where it `must_wait`.
    """

    run: Run
    leg: Leg
    seen: Observation
    said: tuple[str, ...]
    is_over: bool
    wait_s: float
    must_wait: bool = False
    trouble: str = ""

    def pause_s(self, every_s: float | None) -> float:
        return self.wait_s if self.must_wait else every_s or self.wait_s


def poll_run(flow: Workflow, run_id: str) -> PollResult:
    """Looks at the run's latest leg, does what is due, and has the run go on where that was agreed."""
    run = flow.ledger.find_run(run_id)
    if run.latest.state is LegState.RESERVED:  # nobody knows whether it came to be
        flow.reconcile()
        run = flow.ledger.find_run(run_id)
    leg, wait_s = run.latest, flow.target(run.latest.target).capabilities.poll_every_s
    try:
        seen, said = alerts.apply_rules(flow, run, flow.poll_latest(run))
    except Unreachable as error:
        return _unseen(flow, run, wait_s, error)
    run, relay = flow.ledger.find_run(run_id), flow.ledger.relay(run_id)
    if relay is None or not relay_module.is_due(run, relay):
        return PollResult(run, leg, seen, said, seen.state.is_over, wait_s)
    try:
        passed = relay_module.hand_over(flow, run, relay)
    except SubmitUncertain as error:
        return _unseen(flow, flow.ledger.find_run(run_id), wait_s, error)
    said += (*relay_module.hand_over_lines(passed), *_waits(flow, run, passed))
    is_on = bool(passed.leg_id)
    return PollResult(run, leg, seen, said, False, wait_s if is_on else _WAIT_S, must_wait=not is_on)


def _unseen(flow: Workflow, run: Run, wait_s: float, error: BoneagectlError) -> PollResult:
    leg, trouble = run.latest, f"cannot look now: {error.message}"
    known = Observation(leg.state, trouble, leg.epoch, leg.epochs, leg.elapsed_s)
    return PollResult(run, leg, known, (), _is_over(flow, run), wait_s, trouble=trouble)


def _is_over(flow: Workflow, run: Run) -> bool:
    """Whether nothing follows, by what the ledger knows."""
    return run.latest.state.is_over and not relay_module.is_due(run, flow.ledger.relay(run.run_id))


def _waits(flow: Workflow, run: Run, passed: HandOver) -> list[str]:
    """Has it told, once for each leg, that nobody goes on from it."""
    if passed.leg_id:
        return []
    text = f"{run.run_id}: nobody takes its next leg: {'; '.join(passed.troubles)}"
    return alerts.notify_once(flow, run, Action(f"{run.latest.leg_id} waits", text, is_said=True))


def follow_run(flow: Workflow, run_id: str, every_s: float | None) -> Iterator[PollResult]:
    """Look after look, until the run is over."""
    while True:
        look = poll_run(flow, run_id)
        yield look
        if look.is_over:
            return
        time.sleep(look.pause_s(every_s))


def follow_all(flow: Workflow, every_s: float | None) -> Iterator[list[PollResult]]:
    """Looks at every run that is at work or is to go on, each when it is due, until none is left."""
    due_s: dict[str, float] = {}
    while run_ids := list_active_runs(flow):
        time.sleep(max(0.0, min(due_s.get(run_id, 0.0) for run_id in run_ids) - time.monotonic()))
        looks = [_tried(flow, run_id) for run_id in run_ids if due_s.get(run_id, 0.0) <= time.monotonic()]
        due_s |= {look.run.run_id: time.monotonic() + look.pause_s(every_s) for look in looks}
        yield looks


def _tried(flow: Workflow, run_id: str) -> PollResult:
    """What is wrong with one run must not keep the others from being looked at."""
    try:
        return poll_run(flow, run_id)
    except BoneagectlError as error:
        return _unseen(flow, flow.ledger.find_run(run_id), _WAIT_S, error)


def list_active_runs(flow: Workflow) -> list[str]:
    """The runs at work, and those that stopped short and may go on, oldest first."""
    runs = [flow.ledger.find_run(run_id) for run_id in flow.ledger.active_run_ids()]
    return [run.run_id for run in runs if not _is_over(flow, run)]

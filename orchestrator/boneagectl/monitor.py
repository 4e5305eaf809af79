"""The watch loop: polls runs until they are over, applies the alert rules and starts the next legs of relays."""

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

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_RETRY_S = 600
"""Between two attempts to start a next leg that no target accepts."""


@dataclass(frozen=True, slots=True)
class PollResult:
    """What one poll of a run observed and did. `leg` is the leg that was polled; `is_over` means that nothing follows.

    `messages` are for people. `error` says why the target could not be asked; then the rest comes from the ledger.
    The next poll is due in `wait_s`, or sooner if the user asks for it, unless it `must_wait`.
    """

    run: Run
    leg: Leg
    seen: Observation
    messages: tuple[str, ...]
    is_over: bool
    wait_s: float
    must_wait: bool = False
    error: str = ""

    def pause_s(self, every_s: float | None) -> float:
        return self.wait_s if self.must_wait else every_s or self.wait_s


def poll_run(flow: Workflow, run_id: str) -> PollResult:
    """Polls the run's latest leg, applies the rules, and starts the next leg of a relay."""
    run = flow.ledger.find_run(run_id)
    if run.latest.state is LegState.RESERVED:  # it is unknown whether it was created
        flow.reconcile()
        run = flow.ledger.find_run(run_id)
    leg, wait_s = run.latest, flow.target(run.latest.target).capabilities.poll_every_s
    try:
        seen, messages = alerts.apply_rules(flow, run, flow.poll_latest(run))
    except Unreachable as error:
        return _result_from_ledger(flow, run, wait_s, error)
    run, relay = flow.ledger.find_run(run_id), flow.ledger.relay(run_id)
    if relay is None or not relay_module.is_due(run, relay):
        return PollResult(run, leg, seen, messages, seen.state.is_over, wait_s)
    try:
        hand_over = relay_module.hand_over(flow, run, relay)
    except SubmitUncertain as error:
        return _result_from_ledger(flow, flow.ledger.find_run(run_id), wait_s, error)
    messages += tuple(relay_module.hand_over_lines(hand_over))
    if hand_over.leg_id:
        return PollResult(run, leg, seen, messages, False, wait_s)
    text = f"{run.run_id}: no target accepted the next leg: {'; '.join(hand_over.refusals)}"
    messages += tuple(alerts.notify_once(flow, run, Action(f"{run.latest.leg_id} waits", text, is_in_state_line=True)))
    return PollResult(run, leg, seen, messages, False, _RETRY_S, must_wait=True)


def _result_from_ledger(flow: Workflow, run: Run, wait_s: float, error: BoneagectlError) -> PollResult:
    leg, text = run.latest, f"cannot be polled now: {error.message}"
    known = Observation(leg.state, text, leg.epoch, leg.epochs, leg.elapsed_s)
    return PollResult(run, leg, known, (), _is_over(flow, run), wait_s, error=text)


def _is_over(flow: Workflow, run: Run) -> bool:
    """Whether nothing follows, according to the ledger."""
    return run.latest.state.is_over and not relay_module.is_due(run, flow.ledger.relay(run.run_id))


def follow_run(flow: Workflow, run_id: str, every_s: float | None) -> Iterator[PollResult]:
    """Polls until the run is over."""
    while True:
        result = poll_run(flow, run_id)
        yield result
        if result.is_over:
            return
        time.sleep(result.pause_s(every_s))


def follow_all(flow: Workflow, every_s: float | None) -> Iterator[list[PollResult]]:
    """Polls every active run, each when it is due, until none is left."""
    due_s: dict[str, float] = {}
    while run_ids := list_active_runs(flow):
        time.sleep(max(0.0, min(due_s.get(run_id, 0.0) for run_id in run_ids) - time.monotonic()))
        results = []
        for run_id in (run_id for run_id in run_ids if due_s.get(run_id, 0.0) <= time.monotonic()):
            try:
                results.append(poll_run(flow, run_id))
            except BoneagectlError as error:  # an error of one run must not keep the others from being polled
                results.append(_result_from_ledger(flow, flow.ledger.find_run(run_id), _RETRY_S, error))
        due_s |= {result.run.run_id: time.monotonic() + result.pause_s(every_s) for result in results}
        yield results


def list_active_runs(flow: Workflow) -> list[str]:
    """The runs that are not over, and those whose relay may continue, oldest first."""
    runs = [flow.ledger.find_run(run_id) for run_id in flow.ledger.active_run_ids()]
    return [run.run_id for run in runs if not _is_over(flow, run)]

"""Runs longer than a session: the next leg follows by itself, here or elsewhere, as often as was agreed and no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from boneage_trainer.contract import ContractError
from boneagectl.errors import BoneagectlError, SubmitUncertain
from boneagectl.models import LegState, Relay, Run
from boneagectl.targets import check_name

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_TRIES = 4
"""For each leg that was agreed."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Where the next leg went, with what a person has to do there; or, with no `leg_id`, why nobody took it."""

    leg_id: str
    target: str
    troubles: tuple[str, ...]
    steps: tuple[str, ...] = ()


def parse_relay(legs: int, time_limit_s: int, first: str, then: str | None) -> Relay | None:
    """What was asked for at the start: `then` names targets, with commas; by default the first one again.

    Raises:
        UsageError: there is no such target.
    """
    if legs < 2:
        return None
    names = [name for text in (then or first).split(",") if (name := text.strip())]
    for name in names:
        check_name(name)
    return Relay(legs, time_limit_s, tuple(names))


def is_due(run: Run, relay: Relay | None) -> bool:
    """Whether the run stopped short and may go on: after a pause or a loss, never after a fault of its own.

    Legs that never came to be are not among those that were agreed; but trying has an end too.
    """
    stopped = run.latest.state in (LegState.PAUSED, LegState.LOST, LegState.RELEASED)
    return relay is not None and stopped and run.started_legs < relay.legs and len(run.legs) < _TRIES * relay.legs


def hand_over(flow: Workflow, run: Run, relay: Relay) -> HandOver:
    """Submits the next leg on the first target that takes it; one that refuses is told and passed over.

    Raises:
        SubmitUncertain: one may have taken it; the booking stands until it is found.
    """
    troubles: list[str] = []
    for name in relay.targets:
        run = flow.ledger.find_run(run.run_id)  # one that refused what was booked already has left a leg behind
        if not is_due(run, relay):
            break
        try:
            return _submitted(flow, run, relay, name, troubles)
        except SubmitUncertain:
            raise
        except (BoneagectlError, ContractError) as error:
            troubles.append(f"{name}: {error}")
    return HandOver("", "", tuple(troubles))


def _submitted(flow: Workflow, run: Run, relay: Relay, name: str, troubles: list[str]) -> HandOver:
    flow.config = flow.config.with_values(target=name, time_limit=f"{relay.time_limit_s}s")
    prepared = flow.preflight(flow.prepare_resume(run))
    handle = flow.submit(prepared)
    return HandOver(prepared.plan.leg_id, name, tuple(troubles), tuple(prepared.target.next_steps(handle)))


def hand_over_lines(passed: HandOver) -> Iterator[str]:
    yield from (f"not on {trouble}" for trouble in passed.troubles)
    yield f"goes on as {passed.leg_id} on {passed.target}" if passed.leg_id else "nobody takes the next leg now"
    yield from passed.steps

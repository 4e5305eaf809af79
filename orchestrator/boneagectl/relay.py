"""Runs longer than a session: the next leg starts by itself, on the same target or another, at most as often as set."""

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

_ATTEMPTS = 4
"""Legs that may be tried per leg of the relay."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Where the next leg went, with what the user has to do there; with no `leg_id`, why no target accepted it."""

    leg_id: str
    target: str
    refusals: tuple[str, ...]
    steps: tuple[str, ...] = ()


def parse_relay(legs: int, time_limit_s: int, first: str, then: str | None) -> Relay | None:
    """The relay that ``--legs`` and ``--then`` request; `then` names targets, with commas (default: `first`).

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
    """Whether the next leg may start: after a pause or a loss, never after a failure of the run itself.

    Legs that were never created do not count as legs of the relay, but the number of attempts is limited too.
    """
    stopped = run.latest.state in (LegState.PAUSED, LegState.LOST, LegState.RELEASED)
    return relay is not None and stopped and run.started_legs < relay.legs and len(run.legs) < _ATTEMPTS * relay.legs


def hand_over(flow: Workflow, run: Run, relay: Relay) -> HandOver:
    """Submits the next leg on the first target that accepts it; a refusal is reported and the next target tried.

    Raises:
        SubmitUncertain: a target may have accepted it; the reservation stays until the leg is found.
    """
    refusals: list[str] = []
    for name in relay.targets:
        run = flow.ledger.find_run(run.run_id)  # a refusal after the reservation has left a leg
        if not is_due(run, relay):
            break
        try:
            flow.config = flow.config.with_values(target=name, time_limit=f"{relay.time_limit_s}s")
            prepared = flow.preflight(flow.prepare_resume(run))
            handle = flow.submit(prepared)
        except SubmitUncertain:
            raise
        except (BoneagectlError, ContractError) as error:
            refusals.append(f"{name}: {error}")
        else:
            steps = tuple(prepared.target.next_steps(handle))
            return HandOver(prepared.plan.leg_id, name, tuple(refusals), steps)
    return HandOver("", "", tuple(refusals))


def hand_over_lines(result: HandOver) -> Iterator[str]:
    yield from (f"not on {refusal}" for refusal in result.refusals)
    yield f"continues as {result.leg_id} on {result.target}" if result.leg_id else "no target accepted the next leg"
    yield from result.steps

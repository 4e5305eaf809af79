"""Safeguards while a run is watched: rules over one observation that notify or stop a leg before a limit is crossed.

`check_rules` is a pure function of an observation and the time. The plan refuses before a leg begins, and the target's
own limit holds while nothing watches.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from boneagectl import units
from boneagectl.ledger.accounts import Account, Limit
from boneagectl.models import Capabilities, Leg, LegState, Observation, Run, parse_iso

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

SOFT_AFTER_S, HARD_AFTER_S = 30, 300
"""How long after its time limit a leg is asked to end, which its trainer should have done itself, and is ended."""
_SAVING_S = 900
"""What saving and ending may take: a leg is stopped while its limit still has room for it."""
_FIRST_EPOCH_S = 1800
"""How long a leg may run before its first epoch: images and weights are downloaded, kernels compiled."""
_CREDIT_DAYS = 7
_RETRY_S = 600
_WEBHOOK_TIMEOUT_S = 10
_COMMAND_TIMEOUT_S = 60


class ActionKind(StrEnum):
    NOTIFY = "tell"  # as in the JSON that webhooks receive
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Action:
    """What a rule requires. `key` identifies it for ever: each is notified once.

    `is_in_state_line` is true where the state line says the same, so that it need not be printed.
    """

    key: str
    text: str
    kind: ActionKind = ActionKind.NOTIFY
    is_in_state_line: bool = False


@dataclass(frozen=True, slots=True)
class StallRule:
    """A leg without a new epoch counts as stalled after `epochs` times its usual epoch, but not before `least_s`."""

    epochs: float
    least_s: int
    stops: bool


# -------------------------------------------------------------------------------------------- rules
def check_rules(
    leg: Leg, seen: Observation, account: Account, can: Capabilities, epoch_times: Sequence[tuple[int, int]],
    stall: StallRule, now_s: int,
) -> Iterator[Action]:  # fmt: skip
    """Every action that one observation requires.

    `epoch_times`: (epoch, Unix time at which it was first seen); epoch 0 is the start.
    """
    yield from _limit_shares(account)
    yield from _credit_end(account, now_s)
    if seen.state.is_over:
        why = f" ({seen.reason})" if seen.reason else ""
        text = f"{leg.leg_id} on {leg.target} is {seen.state}{why}, epoch {seen.epoch}/{seen.epochs or leg.epochs}"
        yield Action(f"{leg.leg_id} {seen.state}", text, is_in_state_line=True)
        return
    yield from _time_limit(leg, seen, can)
    yield from _account_limits(leg, seen, account, can)
    if can.live_metrics and seen.state is LegState.RUNNING and epoch_times:
        yield from _stall(leg, seen, epoch_times, stall, now_s)


def _limit_shares(account: Account) -> Iterator[Action]:
    """The highest share of each limit that was reached; lower ones are not notified any more."""
    for limit in alert_limits(account):
        reached = [share for share in (*account.alert_at, 100) if in_use(limit) * 100 >= limit.limit * share]
        if reached:
            until = f" until {account.refresh}" if limit.is_time and account.refresh else ""
            unit = "hours" if limit.is_time else limit.kind
            yield Action(f"{account.name} {unit} {limit.limit}{until} {reached[-1]}", _use_text(account, limit) + until)


def alert_limits(account: Account) -> list[Limit]:
    """The limits of which a share can be used."""
    return [limit for limit in account.limits if limit.limit > 0]


def in_use(limit: Limit) -> int:
    """With what running legs have used so far."""
    return limit.used + limit.running


def _use_text(account: Account, limit: Limit) -> str:
    used, total = limit.format_amount(in_use(limit)), limit.format_amount(limit.limit)
    return f"account {account.name}: {used} of the {total} {limit.kind} used"


def _credit_end(account: Account, now_s: int) -> Iterator[Action]:
    if account.credit_ends and 0 < parse_iso(account.credit_ends) - now_s < _CREDIT_DAYS * 86_400:
        day = account.credit_ends[:10]
        yield Action(f"{account.name} credit {day}", f"account {account.name}: the credit ends on {day}")


def _time_limit(leg: Leg, seen: Observation, can: Capabilities) -> Iterator[Action]:
    """A leg that has not ended at its limit is asked to, where that keeps its checkpoint; later it is ended."""
    over_s = (seen.elapsed_s or 0) - leg.time_limit_s
    if not can.can_stop or over_s < SOFT_AFTER_S:
        return
    limit = units.format_duration(leg.time_limit_s)
    if over_s >= HARD_AFTER_S:
        yield Action(f"{leg.leg_id} hard", f"{leg.leg_id} is over its limit of {limit}: ended", ActionKind.STOP)
    elif can.stop_keeps:
        text = f"{leg.leg_id} has reached its limit of {limit}: it saves and ends"
        yield Action(f"{leg.leg_id} soft", text, ActionKind.STOP)
    else:
        left = units.format_duration(HARD_AFTER_S - over_s)
        yield Action(f"{leg.leg_id} soft", f"{leg.leg_id} should have saved and ended by now; it is ended in {left}")


def _account_limits(leg: Leg, seen: Observation, account: Account, can: Capabilities) -> Iterator[Action]:
    """Where what is reserved no longer fits a limit (it was lowered, a bill was higher) and the account is to stop
    then: while there is still room for saving, if stopping saves at all."""
    if account.at_cap != "stop" or not can.can_stop:
        return
    for limit in alert_limits(account):
        rate = 3600 if limit.is_time else _usd_micro_per_hour(leg, seen)
        spare = rate * _SAVING_S // 3600 if can.stop_keeps else 0
        if limit.used + limit.reserved > limit.limit and in_use(limit) + spare >= limit.limit:
            unit = "hours" if limit.is_time else limit.kind
            text = f"{_use_text(account, limit)}: {leg.leg_id} stopped"
            yield Action(f"{leg.leg_id} at {unit}", text, ActionKind.STOP)


def _usd_micro_per_hour(leg: Leg, seen: Observation) -> int:
    """The reserved rate, or the observed one if that is higher."""
    reserved = leg.reserved_usd_micro * 3600 // max(1, leg.time_limit_s)
    observed = seen.spent_usd_micro * 3600 // seen.elapsed_s if seen.elapsed_s else 0
    return max(reserved, observed)


def _stall(
    leg: Leg, seen: Observation, epoch_times: Sequence[tuple[int, int]], stall: StallRule, now_s: int
) -> Iterator[Action]:
    quiet_s, patience_s = now_s - epoch_times[-1][1], _patience_s(seen, epoch_times, stall)
    if quiet_s < patience_s:
        return
    quiet, patience = units.format_duration(quiet_s), units.format_duration(patience_s)
    text = f"{leg.leg_id} has shown no new epoch after {seen.epoch} for {quiet} (limit {patience})"
    if stall.stops:
        yield Action(f"{leg.leg_id} stalled {seen.epoch}", f"{text}: stopped", ActionKind.STOP)
    else:
        yield Action(f"{leg.leg_id} stalled {seen.epoch}", text)


def _patience_s(seen: Observation, epoch_times: Sequence[tuple[int, int]], stall: StallRule) -> int:
    """How long a leg may take for its next epoch: a multiple of its usual epoch, once that is known."""
    observed = [
        (later_s - earlier_s) / (later - earlier)
        for (earlier, earlier_s), (later, later_s) in itertools.pairwise(epoch_times)
        if later > earlier
    ]
    reported = (seen.metrics or {}).get("epoch_s")
    known = [statistics.median(observed)] if observed else []
    known += [float(reported)] if isinstance(reported, int | float) else []
    usual_s = max(known, default=0.0)
    return max(stall.least_s, int(stall.epochs * usual_s) if usual_s else _FIRST_EPOCH_S)


# -------------------------------------------------------------------------------------------- actions
def apply_rules(flow: Workflow, run: Run, seen: Observation) -> tuple[Observation, tuple[str, ...]]:
    """Does what the rules require after a poll of the run's latest leg; returns its state then, and messages.

    A notification is sent once, by the first process that polls. A stop is repeated at every poll that requires it.

    Raises:
        Unreachable: the leg was to be stopped and cannot be; the next poll tries again.
    """
    leg, config = flow.ledger.leg(run.latest.leg_id), flow.config
    can, account = flow.target(leg.target).capabilities, flow.ledger.account(leg.target)
    least_s = units.parse_duration_s(config["watch.stalled_least"])
    stall = StallRule(config["watch.stalled_epochs"], least_s, config["watch.at_stall"] == "stop")
    epoch_times = flow.ledger.epoch_times(leg.leg_id)
    messages: list[str] = []
    for action in check_rules(leg, seen, account, can, epoch_times, stall, int(time.time())):
        messages += notify_once(flow, run, action)
        if action.kind is ActionKind.STOP:
            seen = flow.stop(run)
            break
    return seen, tuple(messages)


def notify_once(flow: Workflow, run: Run, action: Action) -> list[str]:
    """Sends what was never sent; after a failure, again some minutes later. Returns lines for the terminal."""
    if not flow.ledger.mark_notified(action.key):
        return []
    event = {"run_id": run.run_id, "leg_id": run.latest.leg_id, "event": action.key, "does": str(action.kind)}
    config = flow.config
    errors = list(send_alert(config["alert.webhook"], config["alert.command"], {**event, "text": action.text}))
    if errors:
        flow.ledger.retry_notification(action.key, int(time.time()) + _RETRY_S)
    return errors if action.is_in_state_line else [action.text, *errors]


def send_alert(webhook: str, command: Sequence[str], event: Mapping[str, Any]) -> Iterator[str]:
    """Sends `event`, whose ``text`` is for people, and yields a message for each failure. Never raises.

    The webhook's address is a secret: no message repeats it.
    """
    body = json.dumps({**event, "content": event["text"]})
    if webhook and (error := _post(webhook, body)):
        yield f"the alert was not delivered to alert.webhook: {error}"
    if command and (error := _run([*command, str(event["text"])], body)):
        yield f"alert.command {command[0]!r} {error}"


def _post(address: str, body: str) -> str:
    import http.client
    import urllib.error
    import urllib.request

    if not address.startswith(("https://", "http://")):
        return "not an http address"
    headers = {"Content-Type": "application/json", "User-Agent": "boneagectl"}
    try:
        request = urllib.request.Request(address, body.encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_WEBHOOK_TIMEOUT_S):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None)
        return f"{type(reason or error).__name__}"


def _run(command: list[str], body: str) -> str:
    try:
        done = subprocess.run(command, input=body, text=True, capture_output=True, timeout=_COMMAND_TIMEOUT_S,
                              check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"did not end in {_COMMAND_TIMEOUT_S} s"
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    return f"ended with {done.returncode}: {done.stderr.strip()[-200:]}" if done.returncode else ""

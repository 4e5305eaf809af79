"""The second ring: what a look at a leg makes due, to tell or to stop it, before a limit is crossed.

`due` is a pure function of what was seen and when. The first ring refuses before a leg begins, the third is the
remote's own limit, which holds while nobody looks.
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
from boneagectl.models import Account, Capabilities, Leg, LegState, Observation, Run, parse_iso

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

SOFT_AFTER_S, HARD_AFTER_S = 30, 300
"""How long after its limit a leg is asked to end, which its trainer should have done by itself, and is ended."""
_SAVING_S = 900
"""What saving and ending may take: a leg is stopped while the limit still has room for it."""
_BEGINS_S = 1800
"""How long a leg may run before its first epoch: images and weights are fetched, kernels compiled."""
_CREDIT_DAYS = 7
_AGAIN_S = 600


class ActionKind(StrEnum):
    TELL = "tell"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Action:
    """What is due. `key` names it for ever: it is told once. `is_said` where the state line says the same."""

    key: str
    text: str
    does: ActionKind = ActionKind.TELL
    is_said: bool = False


@dataclass(frozen=True, slots=True)
class StallRule:
    """When a leg without a new epoch counts as stalled: after so many of its usual epochs, and not before
    `least_s`."""

    epochs: float
    least_s: int
    stops: bool


def check_rules(
    leg: Leg, seen: Observation, account: Account, can: Capabilities, at_s: Sequence[tuple[int, int]], rules: StallRule,
    now_s: int,
) -> Iterator[Action]:  # fmt: skip
    """Everything that one look makes due; `at_s` says when each epoch was first seen, and as epoch 0 the start."""
    yield from _shares(account)
    yield from _credit(account, now_s)
    if seen.state.is_over:
        why = f" ({seen.reason})" if seen.reason else ""
        text = f"{leg.leg_id} on {leg.target} is {seen.state}{why}, epoch {seen.epoch}/{seen.epochs or leg.epochs}"
        yield Action(f"{leg.leg_id} {seen.state}", text, is_said=True)
        return
    yield from _time(leg, seen, can)
    yield from _room(leg, seen, account, can)
    if can.live_metrics and seen.state is LegState.RUNNING:
        yield from _stall(leg, seen, at_s, rules, now_s)


# -------------------------------------------------------------------------------------------- limits
def _shares(account: Account) -> Iterator[Action]:
    """The highest share of each limit that was reached; those below it are not told any more."""
    for one in account_limits(account):
        reached = [share for share in (*account.alert_at, 100) if one.used * 100 >= one.limit * share]
        if reached:
            until = f" until {account.refresh}" if one.kind == "hours" and account.refresh else ""
            yield Action(
                f"{account.name} {one.kind} {one.limit}{until} {reached[-1]}", f"{one.text(account.name)}{until}"
            )


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of an account, cap or credit in micro-dollars or hours in seconds: what is `used`, with what legs
    at work have used so far, and what may be, with all that is booked."""

    kind: str
    used: int
    booked: int
    limit: int

    def show(self, value: int) -> str:
        return units.format_duration(value) if self.kind == "hours" else units.format_usd(value)

    def text(self, account: str) -> str:
        return f"account {account}: {self.show(self.used)} of the {self.show(self.limit)} {self.kind} used"


def account_limits(account: Account) -> Iterator[Limit]:
    """The account's limits that are more than nothing."""
    running, reserved = account.running_usd_micro, account.reserved_usd_micro
    if cap := account.cap_usd_micro:
        yield Limit("cap", account.spent_usd_micro + running, account.spent_usd_micro + reserved, cap)
    if (told := account.credit_told_usd_micro) and account.credit_usd_micro is not None:
        gone = told - account.credit_usd_micro
        yield Limit("credit", gone + running, gone + reserved, told)
    if limit_s := account.limit_s:
        yield Limit("hours", account.spent_s + account.running_s, account.spent_s + account.reserved_s, limit_s)


def _credit(account: Account, now_s: int) -> Iterator[Action]:
    if account.credit_ends and 0 < parse_iso(account.credit_ends) - now_s < _CREDIT_DAYS * 86_400:
        day = account.credit_ends[:10]
        yield Action(f"{account.name} credit {day}", f"account {account.name}: the credit ends on {day}")


def _time(leg: Leg, seen: Observation, can: Capabilities) -> Iterator[Action]:
    """A leg that has not ended at its limit is asked to, where asking keeps what it has; later it is ended."""
    over_s = (seen.elapsed_s or 0) - leg.time_limit_s
    if not can.can_stop or over_s < SOFT_AFTER_S:
        return
    limit = units.format_duration(leg.time_limit_s)
    if over_s >= HARD_AFTER_S:
        yield Action(f"{leg.leg_id} hard", f"{leg.leg_id} runs on beyond its limit of {limit}: ended", ActionKind.STOP)
    elif can.stop_keeps:
        yield Action(
            f"{leg.leg_id} soft", f"{leg.leg_id} has reached its limit of {limit}: it saves and ends", ActionKind.STOP
        )
    else:
        left = units.format_duration(HARD_AFTER_S - over_s)
        yield Action(f"{leg.leg_id} soft", f"{leg.leg_id} should have saved and ended by now; in {left} it is ended")


def _room(leg: Leg, seen: Observation, account: Account, can: Capabilities) -> Iterator[Action]:
    """Where what is booked fits a limit no more (it was lowered, a bill was higher), and the account is to stop then:
    while there is still room for saving, if stopping saves at all."""
    if account.at_cap != "stop" or not can.can_stop:
        return
    for one in account_limits(account):
        rate = 3600 if one.kind == "hours" else _rate_usd_micro(leg, seen)
        spare = rate * _SAVING_S // 3600 if can.stop_keeps else 0
        if one.booked > one.limit and one.used + spare >= one.limit:
            yield Action(
                f"{leg.leg_id} at {one.kind}", f"{one.text(account.name)}: {leg.leg_id} stopped", ActionKind.STOP
            )


def _rate_usd_micro(leg: Leg, seen: Observation) -> int:
    """Micro-dollars an hour: of what was booked for its longest, or of what it has used if that is more."""
    booked = leg.reserved_usd_micro * 3600 // max(1, leg.time_limit_s)
    used = seen.spent_usd_micro * 3600 // seen.elapsed_s if seen.elapsed_s else 0
    return max(booked, used)


# --------------------------------------------------------------------------------------------- stall
def _stall(
    leg: Leg, seen: Observation, at_s: Sequence[tuple[int, int]], rules: StallRule, now_s: int
) -> Iterator[Action]:
    if not at_s:
        return
    quiet_s, may_s = now_s - at_s[-1][1], patience_s(seen, at_s, rules)
    if quiet_s < may_s:
        return
    since, usual = units.format_duration(quiet_s), units.format_duration(may_s)
    what = f"{leg.leg_id} has shown no new epoch after {seen.epoch} for {since}; {usual} would be long"
    if rules.stops:
        yield Action(f"{leg.leg_id} stalled {seen.epoch}", f"{what}: stopped", ActionKind.STOP)
    else:
        yield Action(f"{leg.leg_id} stalled {seen.epoch}", what)


def patience_s(seen: Observation, at_s: Sequence[tuple[int, int]], rules: StallRule) -> int:
    """How long a leg may go without a new epoch: a multiple of the usual time of one, once one is known."""
    took = [
        (later - earlier) / (epoch - before)
        for (before, earlier), (epoch, later) in itertools.pairwise(at_s)
        if epoch > before
    ]
    own = (seen.metrics or {}).get("epoch_s")
    known = [statistics.median(took)] if took else []
    known += [float(own)] if isinstance(own, int | float) else []
    usual_s = max(known, default=0.0)
    return max(rules.least_s, int(rules.epochs * usual_s)) if usual_s else max(rules.least_s, _BEGINS_S)


# ----------------------------------------------------------------------------------------- carried out
def apply_rules(flow: Workflow, run: Run, seen: Observation) -> tuple[Observation, tuple[str, ...]]:
    """Carries out what is due after a look at the run's latest leg; what it is then, and what was done, in words.

    What is only told is told once, by whoever looks first. A leg is stopped by every look that finds it due.

    Raises:
        Unreachable: it was to be stopped, and cannot be; the next look tries again.
    """
    leg = flow.ledger.leg(run.latest.leg_id)
    can, account = flow.target(leg.target).capabilities, flow.ledger.account(leg.target)
    acts = check_rules(leg, seen, account, can, flow.ledger.epoch_times(leg.leg_id), stall_rule(flow), int(time.time()))
    said: list[str] = []
    for act in acts:
        said += notify_once(flow, run, act)
        if act.does is ActionKind.STOP:
            seen = flow.stop(run)
            break
    return seen, tuple(said)


def stall_rule(flow: Workflow) -> StallRule:
    config = flow.config
    least_s = units.parse_duration_s(config["watch.stalled_least"])
    return StallRule(config["watch.stalled_epochs"], least_s, config["watch.at_stall"] == "stop")


def notify_once(flow: Workflow, run: Run, act: Action) -> list[str]:
    """Sends what was never told; what does not arrive is sent again after some minutes. For the terminal, in words."""
    if not flow.ledger.mark_notified(act.key):
        return []
    event = {"run_id": run.run_id, "leg_id": run.latest.leg_id, "event": act.key, "does": str(act.does)}
    config = flow.config
    troubles = list(send_alert(config["alert.webhook"], config["alert.command"], {**event, "text": act.text}))
    if troubles:
        flow.ledger.retry_notification(act.key, int(time.time()) + _AGAIN_S)
    return troubles if act.is_said else [act.text, *troubles]


# == alerting: Tells what happened where people look: a webhook, a command of their own. Neither is ever needed.

_TIMEOUT_S = 10
_COMMAND_TIMEOUT_S = 60


def send_alert(webhook: str, command: Sequence[str], event: Mapping[str, Any]) -> Iterator[str]:
    """Sends `event`, whose ``text`` is for people; yields in words what did not arrive. Never raises.

    The webhook's address is a secret: no message repeats it.
    """
    body = json.dumps({**event, "content": event["text"]})
    if webhook and (trouble := _post(webhook, body)):
        yield f"the alert did not reach alert.webhook: {trouble}"
    if command and (trouble := _run([*command, str(event["text"])], body)):
        yield f"alert.command {command[0]!r} {trouble}"


def _post(address: str, body: str) -> str:
    import http.client
    import urllib.error
    import urllib.request

    if not address.startswith(("https://", "http://")):
        return "it is no http address"
    headers = {"Content-Type": "application/json", "User-Agent": "boneagectl"}
    try:
        request = urllib.request.Request(address, body.encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):  # noqa: S310
            return ""
    except urllib.error.HTTPError as error:
        return f"it answered {error.code}"
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

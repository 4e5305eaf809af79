"""The screen of `watch`: one run, its figures, its time and money against their limits, and what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from boneagectl import guarding, units
from boneagectl.cli import present
from boneagectl.records import LegState, Relay

if TYPE_CHECKING:
    from boneagectl.guarding import Limit
    from boneagectl.watching import Look
    from boneagectl.workflow import Workflow

_BAR_WIDTH = 24
_NOT_STOPPED = "Ctrl-C ends watching, not the training"


class View:
    """What the screen of a run shows; it keeps the curve, of which a look may tell only one point."""

    def __init__(self, flow: Workflow) -> None:
        self.flow = flow
        self._curve: dict[int, float | None] = {}
        self._epoch = -1

    def lines(self, look: Look) -> list[str]:
        relay = self.flow.ledger.relay(look.run.run_id)
        limits = list(guarding.limits_of(self.flow.ledger.account(look.leg.target)))
        parts = (_leg(look, relay), _state(look), self._figures(look), _time(look), _money(look, limits),
                 _next(look, relay))  # fmt: skip
        return [line for part in parts for line in part]

    def _figures(self, look: Look) -> Iterator[str]:
        metrics = look.seen.metrics or {}
        if look.seen.epoch != self._epoch:
            self._add(look)
        if texts := present.metric_texts(metrics):
            yield f"figures  {', '.join(texts)}"
        values = [self._curve.get(epoch) for epoch in range(1, max(self._curve, default=0) + 1)]
        if curve := present.curve_text(values):
            yield f"val MAE  {curve}"

    def _add(self, look: Look) -> None:
        """What is here of the curve, and the point that was seen."""
        from boneagectl import reporting

        self._epoch, metrics = look.seen.epoch, look.seen.metrics or {}
        known = enumerate(reporting.history(self.flow, look.run), start=1)
        self._curve.update({epoch: value for epoch, value in known if value is not None})
        if isinstance(metrics.get("epoch"), int):
            self._curve[metrics["epoch"]] = metrics.get("val_mae_months")


def _leg(look: Look, relay: Relay | None) -> Iterator[str]:
    of = f", {look.run.begun} of at most {relay.legs} begun" if relay else ""
    yield f"run      {look.run.run_id}, leg {look.leg.number}{of}, on {look.leg.target}"
    if before := look.run.legs[: look.leg.number - 1]:
        yield f"before   {'; '.join(f'{one.target} {one.state} at epoch {one.epoch}' for one in before[-3:])}"


def _state(look: Look) -> Iterator[str]:
    seen = look.seen
    yield f"state    {seen.state}{f' ({seen.reason})' if seen.reason else ''}"
    if seen.epochs:
        yield f"epoch    {bar(seen.epoch, seen.epochs)}  {seen.epoch} of {seen.epochs}{_rest(look)}"


def _rest(look: Look) -> str:
    """How long the epochs that are left take at the newest one's pace."""
    epoch_s, left = (look.seen.metrics or {}).get("epoch_s"), look.seen.epochs - look.seen.epoch
    if look.seen.state.is_over or not left or not isinstance(epoch_s, int | float):
        return ""
    return f", about {units.format_duration(int(left * epoch_s))} for the rest"


def _time(look: Look) -> Iterator[str]:
    if look.seen.elapsed_s is None:
        yield "time     not known"
    else:
        yield _against("time", look.seen.elapsed_s, look.leg.time_limit_s, units.format_duration)


def _money(look: Look, limits: list[Limit]) -> Iterator[str]:
    spent, booked = look.seen.spent_usd_micro, look.leg.reserved_usd_micro
    if booked:
        yield _against("cost", spent, booked, units.format_usd) + " booked"
    for one in limits:
        yield _against("account", one.used, one.limit, one.show) + f" of {look.leg.target}'s {one.kind}"


def _against(label: str, used: int, limit: int, show: Callable[[int], str]) -> str:
    return f"{label:<8} {bar(used, limit)}  {show(used)} of {show(limit)}"


def bar(done: int, of: int) -> str:
    """How far: never full before it is, never empty once begun."""
    filled = 0 if done <= 0 else min(_BAR_WIDTH, max(1, _BAR_WIDTH * done // of))
    full, empty = ("#", ".") if present.is_plain_terminal() else ("█", "░")
    return full * filled + empty * (_BAR_WIDTH - filled)


def _next(look: Look, relay: Relay | None) -> Iterator[str]:
    if look.is_over:
        yield f"next     boneagectl {_after(look)}"
        return
    goes_on = relay is not None and look.run.begun < relay.legs
    then = f", then leg {look.leg.number + 1} goes on on {' or '.join(relay.targets)}" if relay and goes_on else ""
    limit = units.format_duration(look.leg.time_limit_s)
    yield f"next     saves and ends after {limit} at the latest{then}"
    yield f"         {_NOT_STOPPED}"


def _after(look: Look) -> str:
    run_id = look.run.run_id
    if look.seen.state is LegState.COMPLETE:
        return f"report {run_id}"
    return f"logs {run_id}" if look.seen.state is LegState.FAILED else f"resume {run_id}"

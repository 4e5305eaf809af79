"""watch: one screen that follows a run, or a line for each of all; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from boneagectl import alerts, units
from boneagectl.cli import format_runs, options
from boneagectl.errors import RunFailed, UsageError
from boneagectl.models import LegState, Relay
from boneagectl.output import Printer, Screen

if TYPE_CHECKING:
    from boneagectl.alerts import Limit
    from boneagectl.monitor import PollResult
    from boneagectl.runs import Workflow

_Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's id, its beginning, or 'last'.")]
_Every = Annotated[float | None, typer.Option("--every", metavar="SECONDS", min=0.1, help="Time between two looks.")]
_ALL = "Every run that is at work or is to go on."


def watch(
    run: _Run = None,
    all_: Annotated[bool, typer.Option("--all", help=_ALL)] = False,
    every_s: _Every = None,
    once: Annotated[bool, typer.Option("--once", help="Look once and return; for cron.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Follow a run until it is over.

    Each look also guards: it tells when a share of a limit is used or no new epoch comes, here and by alert.webhook and
    alert.command; it has a leg save and end at its limit; it starts the next leg of a run submitted with --legs. Ctrl-C
    stops watching, never the training. Exits with 0 when complete or paused, 4 when it failed or was lost.

    Example: boneagectl watch last
    """
    from boneagectl import monitor

    if run and all_:
        raise UsageError("--all watches every run, so none is named", "boneagectl watch --all")
    with options.workflow() as flow:
        flow.reconcile()
        printer = Printer(json, quiet)
        if all_:
            show_all(flow, monitor.follow_all(flow, every_s), once, printer)
            return
        last = follow(flow, flow.ledger.find_run(run or "last").run_id, every_s, once, printer)
        if last.is_over:
            raise_if_failed(last)


def follow(flow: Workflow, run_id: str, every_s: float | None, once: bool, printer: Printer) -> PollResult:
    """Shows look after look at one run, and returns the last."""
    from boneagectl import monitor

    pass

    shown, view = _Shown(printer), View(flow)
    for look in monitor.follow_run(flow, run_id, every_s):
        is_last = once or look.is_over
        shown([look], view.lines(look) if shown.screen.is_live else [], is_last)
        if is_last:
            break
    return look


def show_all(flow: Workflow, rounds: Iterator[list[PollResult]], once: bool, printer: Printer) -> None:
    """A line for each run."""
    shown, is_any = _Shown(printer), False
    for looks in rounds:
        is_any = True
        shown(looks, [_line(look) for look in looks], once)
        if once:
            break
    if not is_any:
        printer.talk("no run is at work or is to go on")


class _Shown:
    """What was shown already: a line is printed again only where something changed, a screen is drawn anew."""

    def __init__(self, printer: Printer) -> None:
        self.printer, self.screen = printer, Screen(printer)
        self._last: dict[str, object] = {}

    def __call__(self, looks: list[PollResult], lines: list[str], is_last: bool) -> None:
        for look in looks:
            if self._is_new(look) or look.said:
                self._print(look)
        if self.screen.is_live:
            self.screen.draw(lines, is_last)
        for look in looks:
            for text in look.said:
                self.screen.talk(f"{look.run.run_id}  {text}")

    def _is_new(self, look: PollResult) -> bool:
        key = (look.leg.leg_id, look.seen.state, look.seen.epoch, look.trouble)
        is_new = self._last.get(look.run.run_id) != key
        self._last[look.run.run_id] = key
        return is_new

    def _print(self, look: PollResult) -> None:
        if self.printer.json:
            value = {"run_id": look.run.run_id, "leg_id": look.leg.leg_id, "snapshot": look.seen, "said": look.said}
            self.printer.line(value, "")
        elif not self.screen.is_live:
            self.printer.talk(_line(look))


def _line(look: PollResult) -> str:
    return f"{look.run.run_id}  {format_runs.observation_text(look.seen, look.leg.time_limit_s)}"


def raise_if_failed(look: PollResult) -> None:
    run_id, state = look.run.run_id, look.seen.state
    if state in (LegState.FAILED, LegState.LOST):
        raise RunFailed(
            f"{run_id} {state}: {look.seen.reason}", f"boneagectl logs {run_id}; boneagectl resume {run_id}"
        )


# == live: The screen of `watch`: one run, its figures, its time and money against their limits, and what comes next.

_BAR_WIDTH = 24
_NOT_STOPPED = "Ctrl-C ends watching, not the training"


class View:
    """What the screen of a run shows; it keeps the curve, of which a look may tell only one point."""

    def __init__(self, flow: Workflow) -> None:
        self.flow = flow
        self._curve: dict[int, float | None] = {}
        self._epoch = -1

    def lines(self, look: PollResult) -> list[str]:
        relay = self.flow.ledger.relay(look.run.run_id)
        limits = list(alerts.account_limits(self.flow.ledger.account(look.leg.target)))
        parts = (_leg(look, relay), _state(look), self._figures(look), _time(look), _money(look, limits),
                 _next(look, relay))  # fmt: skip
        return [line for part in parts for line in part]

    def _figures(self, look: PollResult) -> Iterator[str]:
        metrics = look.seen.metrics or {}
        if look.seen.epoch != self._epoch:
            self._add(look)
        if texts := format_runs.metric_texts(metrics):
            yield f"figures  {', '.join(texts)}"
        values = [self._curve.get(epoch) for epoch in range(1, max(self._curve, default=0) + 1)]
        if curve := format_runs.curve_text(values):
            yield f"val MAE  {curve}"

    def _add(self, look: PollResult) -> None:
        """What is here of the curve, and the point that was seen."""
        from boneagectl.report import collect

        self._epoch, metrics = look.seen.epoch, look.seen.metrics or {}
        known = enumerate(collect.validation_curve(self.flow, look.run), start=1)
        self._curve.update({epoch: value for epoch, value in known if value is not None})
        if isinstance(metrics.get("epoch"), int):
            self._curve[metrics["epoch"]] = metrics.get("val_mae_months")


def _leg(look: PollResult, relay: Relay | None) -> Iterator[str]:
    of = f", {look.run.started_legs} of at most {relay.legs} begun" if relay else ""
    yield f"run      {look.run.run_id}, leg {look.leg.number}{of}, on {look.leg.target}"
    if before := look.run.legs[: look.leg.number - 1]:
        yield f"before   {'; '.join(f'{one.target} {one.state} at epoch {one.epoch}' for one in before[-3:])}"


def _state(look: PollResult) -> Iterator[str]:
    seen = look.seen
    yield f"state    {seen.state}{f' ({seen.reason})' if seen.reason else ''}"
    if seen.epochs:
        yield f"epoch    {bar(seen.epoch, seen.epochs)}  {seen.epoch} of {seen.epochs}{_rest(look)}"


def _rest(look: PollResult) -> str:
    """How long the epochs that are left take at the newest one's pace."""
    epoch_s, left = (look.seen.metrics or {}).get("epoch_s"), look.seen.epochs - look.seen.epoch
    if look.seen.state.is_over or not left or not isinstance(epoch_s, int | float):
        return ""
    return f", about {units.format_duration(int(left * epoch_s))} for the rest"


def _time(look: PollResult) -> Iterator[str]:
    if look.seen.elapsed_s is None:
        yield "time     not known"
    else:
        yield _against("time", look.seen.elapsed_s, look.leg.time_limit_s, units.format_duration)


def _money(look: PollResult, limits: list[Limit]) -> Iterator[str]:
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
    full, empty = ("#", ".") if format_runs.is_plain_terminal() else ("█", "░")
    return full * filled + empty * (_BAR_WIDTH - filled)


def _next(look: PollResult, relay: Relay | None) -> Iterator[str]:
    if look.is_over:
        yield f"next     boneagectl {_after(look)}"
        return
    goes_on = relay is not None and look.run.started_legs < relay.legs
    then = f", then leg {look.leg.number + 1} goes on on {' or '.join(relay.targets)}" if relay and goes_on else ""
    limit = units.format_duration(look.leg.time_limit_s)
    yield f"next     saves and ends after {limit} at the latest{then}"
    yield f"         {_NOT_STOPPED}"


def _after(look: PollResult) -> str:
    run_id = look.run.run_id
    if look.seen.state is LegState.COMPLETE:
        return f"report {run_id}"
    return f"logs {run_id}" if look.seen.state is LegState.FAILED else f"resume {run_id}"

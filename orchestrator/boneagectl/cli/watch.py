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
    from boneagectl.monitor import PollResult
    from boneagectl.runs import Workflow

_Run = Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's id, its beginning, or 'last'.")]
_Every = Annotated[float | None, typer.Option("--every", metavar="SECONDS", min=0.1, help="Time between two polls.")]
_ALL = "Every run that is running or whose next leg may start."


# -------------------------------------------------------------------------------------------- command
def watch(
    run: _Run = None,
    all_: Annotated[bool, typer.Option("--all", help=_ALL)] = False,
    every_s: _Every = None,
    once: Annotated[bool, typer.Option("--once", help="Poll once and return; for cron.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Follow a run until it is over.

    Each poll also enforces limits: it notifies, here and by alert.webhook and alert.command, when a share of a limit is
    used or no new epoch appears; it makes a leg save and end at its limit; it starts the next leg of a run submitted
    with --legs. Ctrl-C stops watching, not the run. Exits with 0 when complete or paused, 4 when failed or lost.

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
    """Shows each poll of one run, and returns the last."""
    from boneagectl import monitor

    log, screen = _PollLog(printer), RunScreen(flow)
    for result in monitor.follow_run(flow, run_id, every_s):
        is_last = once or result.is_over
        log.show([result], screen.lines(result) if log.screen.is_live else [], is_last)
        if is_last:
            break
    return result


def show_all(flow: Workflow, polls: Iterator[list[PollResult]], once: bool, printer: Printer) -> None:
    """Shows a line for each run."""
    log, is_any = _PollLog(printer), False
    for results in polls:
        is_any = True
        log.show(results, [_line(result) for result in results], once)
        if once:
            break
    if not is_any:
        printer.talk("no run is running, and no next leg may start")


class _PollLog:
    """What was shown already: a line is printed again only where something changed, a screen is redrawn."""

    def __init__(self, printer: Printer) -> None:
        self.printer, self.screen = printer, Screen(printer)
        self._last: dict[str, object] = {}

    def show(self, results: list[PollResult], lines: list[str], is_last: bool) -> None:
        for result in results:
            key = (result.leg.leg_id, result.seen.state, result.seen.epoch, result.error)
            if result.messages or self._last.get(result.run.run_id) != key:
                self._print(result)
            self._last[result.run.run_id] = key
        if self.screen.is_live:
            self.screen.draw(lines, is_last)
        for result in results:
            for text in result.messages:
                self.screen.talk(f"{result.run.run_id}  {text}")

    def _print(self, result: PollResult) -> None:
        if self.printer.json:
            ids = {"run_id": result.run.run_id, "leg_id": result.leg.leg_id}
            self.printer.line({**ids, "snapshot": result.seen, "said": result.messages}, "")
        elif not self.screen.is_live:
            self.printer.talk(_line(result))


def _line(result: PollResult) -> str:
    return f"{result.run.run_id}  {format_runs.observation_text(result.seen, result.leg.time_limit_s)}"


def raise_if_failed(result: PollResult) -> None:
    run_id, state = result.run.run_id, result.seen.state
    if state in (LegState.FAILED, LegState.LOST):
        commands = f"boneagectl logs {run_id}; boneagectl resume {run_id}"
        raise RunFailed(f"{run_id} {state}: {result.seen.reason}", commands)


# -------------------------------------------------------------------------------------------- screen
_BAR_WIDTH = 24


class RunScreen:
    """The screen of one run: its metrics, its time and money against their limits, and what comes next.

    It keeps the learning curve, of which a poll may contain only one point.
    """

    def __init__(self, flow: Workflow) -> None:
        self.flow = flow
        self._curve: dict[int, float | None] = {}
        self._epoch = -1

    def lines(self, result: PollResult) -> list[str]:
        run, leg, seen, relay = result.run, result.leg, result.seen, self.flow.ledger.relay(result.run.run_id)
        started = f", {run.started_legs} of at most {relay.legs} started" if relay else ""
        lines = [f"run      {run.run_id}, leg {leg.number}{started}, on {leg.target}"]
        if before := run.legs[: leg.number - 1][-3:]:
            legs = "; ".join(f"{earlier.target} {earlier.state} at epoch {earlier.epoch}" for earlier in before)
            lines.append(f"before   {legs}")
        lines += [*_state_lines(result), *self._metric_lines(result)]
        if seen.elapsed_s is None:
            lines.append("time     unknown")
        else:
            lines.append(_share_line("time", seen.elapsed_s, leg.time_limit_s, units.format_duration))
        return [*lines, *self._money_lines(result), *_next_lines(result, relay)]

    def _metric_lines(self, result: PollResult) -> Iterator[str]:
        from boneagectl.report import collect

        metrics = result.seen.metrics or {}
        if result.seen.epoch != self._epoch:  # what is collected of the curve, and the point that was observed
            self._epoch = result.seen.epoch
            known = enumerate(collect.validation_curve(self.flow, result.run), start=1)
            self._curve.update({epoch: value for epoch, value in known if value is not None})
            if isinstance(metrics.get("epoch"), int):
                self._curve[metrics["epoch"]] = metrics.get("val_mae_months")
        if texts := format_runs.metric_texts(metrics):
            yield f"metrics  {', '.join(texts)}"
        values = [self._curve.get(epoch) for epoch in range(1, max(self._curve, default=0) + 1)]
        if curve := format_runs.curve_text(values):
            yield f"val MAE  {curve}"

    def _money_lines(self, result: PollResult) -> Iterator[str]:
        spent, reserved = result.seen.spent_usd_micro, result.leg.reserved_usd_micro
        if reserved:
            yield _share_line("cost", spent, reserved, units.format_usd) + " reserved"
        account = self.flow.ledger.account(result.leg.target)
        for limit in alerts.alert_limits(account):
            line = _share_line("account", alerts.in_use(limit), limit.limit, limit.format_amount)
            yield f"{line} of {account.name}'s {limit.kind}"


def _state_lines(result: PollResult) -> Iterator[str]:
    seen = result.seen
    yield f"state    {seen.state}{f' ({seen.reason})' if seen.reason else ''}"
    if seen.epochs:
        epoch_s, left = (seen.metrics or {}).get("epoch_s"), seen.epochs - seen.epoch
        rest = ""
        if left and not seen.state.is_over and isinstance(epoch_s, int | float):  # at the newest epoch's pace
            rest = f", about {units.format_duration(int(left * epoch_s))} left"
        yield f"epoch    {bar(seen.epoch, seen.epochs)}  {seen.epoch} of {seen.epochs}{rest}"


def _share_line(label: str, used: int, limit: int, show: Callable[[int], str]) -> str:
    return f"{label:<8} {bar(used, limit)}  {show(used)} of {show(limit)}"


def bar(done: int, total: int) -> str:
    """A progress bar: never full before the end, never empty after the start."""
    filled = 0 if done <= 0 else min(_BAR_WIDTH, max(1, _BAR_WIDTH * done // total))
    full, empty = ("#", ".") if format_runs.is_plain_terminal() else ("█", "░")
    return full * filled + empty * (_BAR_WIDTH - filled)


def _next_lines(result: PollResult, relay: Relay | None) -> Iterator[str]:
    run_id, state = result.run.run_id, result.seen.state
    if result.is_over:
        commands = {LegState.COMPLETE: "report", LegState.FAILED: "logs"}
        yield f"next     boneagectl {commands.get(state, 'resume')} {run_id}"
        return
    then = ""
    if relay and result.run.started_legs < relay.legs:
        then = f", then continues as leg {result.leg.number + 1} on {' or '.join(relay.targets)}"
    yield f"next     saves and ends after {units.format_duration(result.leg.time_limit_s)} at the latest{then}"
    yield "         Ctrl-C stops watching, not the run"

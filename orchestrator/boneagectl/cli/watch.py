"""watch: one screen that follows a run, or a line for each of all; plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from boneagectl.cli import options, present
from boneagectl.errors import RunFailed, UsageError
from boneagectl.output import Printer, Screen
from boneagectl.records import LegState

if TYPE_CHECKING:
    from boneagectl.watching import Look
    from boneagectl.workflow import Workflow

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
    from boneagectl import watching

    if run and all_:
        raise UsageError("--all watches every run, so none is named", "boneagectl watch --all")
    with options.workflow() as flow:
        flow.reconcile()
        printer = Printer(json, quiet)
        if all_:
            show_all(flow, watching.rounds(flow, every_s), once, printer)
            return
        last = follow(flow, flow.ledger.find_run(run or "last").run_id, every_s, once, printer)
        if last.is_over:
            raise_if_failed(last)


def follow(flow: Workflow, run_id: str, every_s: float | None, once: bool, printer: Printer) -> Look:
    """Shows look after look at one run, and returns the last."""
    from boneagectl import watching
    from boneagectl.cli.live import View

    shown, view = _Shown(printer), View(flow)
    for look in watching.follow(flow, run_id, every_s):
        is_last = once or look.is_over
        shown([look], view.lines(look) if shown.screen.is_live else [], is_last)
        if is_last:
            break
    return look


def show_all(flow: Workflow, rounds: Iterator[list[Look]], once: bool, printer: Printer) -> None:
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

    def __call__(self, looks: list[Look], lines: list[str], is_last: bool) -> None:
        for look in looks:
            if self._is_new(look) or look.said:
                self._print(look)
        if self.screen.is_live:
            self.screen.draw(lines, is_last)
        for look in looks:
            for text in look.said:
                self.screen.talk(f"{look.run.run_id}  {text}")

    def _is_new(self, look: Look) -> bool:
        key = (look.leg.leg_id, look.seen.state, look.seen.epoch, look.trouble)
        is_new = self._last.get(look.run.run_id) != key
        self._last[look.run.run_id] = key
        return is_new

    def _print(self, look: Look) -> None:
        if self.printer.json:
            value = {"run_id": look.run.run_id, "leg_id": look.leg.leg_id, "snapshot": look.seen, "said": look.said}
            self.printer.line(value, "")
        elif not self.screen.is_live:
            self.printer.talk(_line(look))


def _line(look: Look) -> str:
    return f"{look.run.run_id}  {present.snapshot_text(look.seen, look.leg.time_limit_s)}"


def raise_if_failed(look: Look) -> None:
    run_id, state = look.run.run_id, look.seen.state
    if state in (LegState.FAILED, LegState.LOST):
        raise RunFailed(
            f"{run_id} {state}: {look.seen.reason}", f"boneagectl logs {run_id}; boneagectl resume {run_id}"
        )

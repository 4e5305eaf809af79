"""From runs to their reports: collect, gather what the ledger knows, render, write."""

from __future__ import annotations

import base64
import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boneage_trainer.contract import ContractError, RunFolder, parse_object, parse_sentinel, read_metrics, write_atomic
from boneagectl import artifacts, units
from boneagectl.errors import BoneagectlError, NotYet, UsageError
from boneagectl.ledger import burndown
from boneagectl.models import Leg, LegState, Run, as_json
from boneagectl.output import ComparisonFormat, Format

if TYPE_CHECKING:
    from boneagectl.runs import Workflow

_PNG = b"\x89PNG\r\n\x1a\n"
_MAKE_SHEET = "boneagectl data describe PACK --samples SHEET.png"


def build(flow: Workflow, run: Run, wanted: Format, samples: Path | None = None) -> str:
    """Collects `run` and renders its report; `samples` is a sheet of radiographs that HTML shows.

    Raises:
        NotYet: no leg of the run has made anything. UsageError: `samples` is no PNG.
    """
    shown: dict[str, Any] = {"samples_png": _png(samples)} if samples else {}
    folder = flow.collect(run).folder
    if wanted is Format.HTML:
        shown["accounts"] = _used(run, burndowns(flow))
    return _rendered(flow, run, folder, wanted, shown)


def _rendered(flow: Workflow, run: Run, folder: Path, wanted: Format, shown: dict[str, Any]) -> str:
    from boneagectl.report import run_page as report

    data = report.load_run(RunFolder(folder), {**facts(flow, run), **shown})
    if wanted is Format.HTML:
        return report.render_html(data)
    return report.to_csv(data) if wanted is Format.CSV else json.dumps(report.to_json(data), indent=2) + "\n"


def _png(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", _MAKE_SHEET) from None
    if not content.startswith(_PNG):
        raise UsageError(f"{path} is no PNG", _MAKE_SHEET)
    return base64.b64encode(content).decode()


# ------------------------------------------------------------------------------------- facts
def facts(flow: Workflow, run: Run) -> dict[str, Any]:
    """What the ledger knows of a run and its folder does not; None is "not known"."""
    spent = [leg.spent_usd_micro for leg in run.legs]
    known = [value for value in spent if value is not None]
    return {
        "run_id": run.run_id,
        "legs": [_leg_facts(flow, leg) for leg in run.legs],
        "cost_usd": units.to_usd(sum(known)) if len(known) == len(spent) else None,
        "quota_hours": _quota_hours(flow, run),
        "config": as_json(run.config),
        "data": run.data,
        "bundle_sha256": run.bundle_sha256,
        "created": run.created,
        "command": f"boneagectl report {run.run_id}",
    }


def _leg_facts(flow: Workflow, leg: Leg) -> dict[str, Any]:
    return {
        "id": leg.leg_id,
        "number": leg.number,
        "target": leg.target,
        "state": str(leg.state),
        "reason": leg.reason,
        "started": leg.created,
        "hours": leg.elapsed_s / 3600,
        "elapsed_s": leg.elapsed_s,
        "trainer_s": _trainer_s(flow, leg),
    }


def _trainer_s(flow: Workflow, leg: Leg) -> float | None:
    """How long the leg's trainer itself ran, by the state it left; None where that is not here or another leg's."""
    said = _object(flow.paths(leg).artifacts.state)
    if said.get("leg") != leg.leg_id or said.get("state") == "running":
        return None
    try:
        return max(0.0, float(said["updated_s"]) - float(said["started_s"]))
    except (KeyError, TypeError, ValueError):
        return None


def _quota_hours(flow: Workflow, run: Run) -> float | None:
    """Hours of a provider's quota, as the plans of the legs booked them; None where a plan is not here."""
    hours = 0.0
    for leg in run.legs:
        if leg.state is LegState.RELEASED:
            continue
        quote = _object(flow.paths(leg).plan).get("plan", {}).get("quote", {})
        if "quota_s" not in quote:
            return None
        hours += leg.elapsed_s / 3600 if quote["quota_s"] else 0.0
    return hours


def _object(path: Path) -> dict[str, Any]:
    """A JSON object of ours, empty where it is not there or torn."""
    try:
        return parse_object(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError, ContractError):
        return {}


def burndowns(flow: Workflow) -> list[dict[str, Any]]:
    """What is left of every account's limits of which anything is used, by the ledger: see `burndown.of`."""
    ledger, lines, now_s, found = flow.ledger, flow.ledger.entries(), int(time.time()), []
    for account in ledger.accounts():
        own = [line for line in lines if line.account == account.name]
        by_day = burndown.expand_daily_charges(own, partial(ledger.spent_usd_micro, account.name), now_s)
        found += burndown.limit_series(account, by_day, now_s)
    return found


def _used(run: Run, accounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of `accounts` on which a leg of `run` was booked."""
    targets = {leg.target for leg in run.legs}
    return [one for one in accounts if one["account"] in targets]


# ---------------------------------------------------------------------------------- all runs
def build_index(flow: Workflow, path: Path) -> list[str]:
    """Writes the page over all runs to `path`, and each run's report where it is missing or older than the run.

    Only what needs no network is collected for it. Returns what had to be left out, in words.
    """
    from boneagectl.report import index_page

    entries, troubles, accounts = [], [], burndowns(flow)
    for run in flow.ledger.runs():
        folder = collected(flow, run)
        try:
            if folder:
                _refresh_report(flow, run, folder, _used(run, accounts))
            entries.append(index_page.entry(folder, facts(flow, run), flow.home.report(run.run_id), path))
        except ContractError as error:
            troubles.append(f"{run.run_id}: {error}")
            entries.append(index_page.entry(None, facts(flow, run), flow.home.report(run.run_id), path))
    write_atomic(path, index_page.render(entries, accounts))
    return troubles


def collected(flow: Workflow, run: Run) -> RunFolder | None:
    """The newest folder of `run` with an epoch to show, of what is here or needs no network to bring; else the newest
    with anything."""
    for leg in run.legs:
        is_near = leg.handle and not flow.target(leg.target).capabilities.needs_network
        if is_near and not artifacts.is_complete(flow.paths(leg).artifacts):
            with suppress(NotYet):
                flow.collect_leg(leg)
    found = [folder for leg in reversed(run.legs) if (folder := flow.paths(leg).artifacts).root.is_dir()]
    return next((folder for folder in found if folder.metrics.exists()), found[0] if found else None)


def _refresh_report(flow: Workflow, run: Run, folder: RunFolder, accounts: list[dict[str, Any]]) -> None:
    """Like make: a report is written anew where something it is made of is newer."""
    report = flow.home.report(run.run_id)
    sources = (folder.metrics, folder.predictions, folder.evaluation, folder.environment, folder.state)
    newest = max((path.stat().st_mtime_ns for path in sources if path.exists()), default=0)
    if not report.exists() or report.stat().st_mtime_ns < newest:
        write_atomic(report, _rendered(flow, run, folder.root, Format.HTML, {"accounts": accounts}))


# ----------------------------------------------------------------------------------- history
def history(flow: Workflow, run: Run) -> list[float | None]:
    """Validation MAE by epoch in months, of all legs, as far as it is here or needs no network."""
    lines: dict[int, Any] = {}
    for leg in run.legs:
        with suppress(BoneagectlError, ContractError, OSError):
            for line in _lines(flow, leg):
                if isinstance(line.get("epoch"), int):
                    lines[line["epoch"]] = line.get("val_mae_months")
    last = max(lines, default=0)
    values = (lines.get(epoch) for epoch in range(1, last + 1))
    return [float(value) if isinstance(value, int | float) else None for value in values]


def _lines(flow: Workflow, leg: Leg) -> Iterator[dict[str, Any]]:
    yield from read_metrics(flow.paths(leg).artifacts.metrics)
    target = flow.target(leg.target)
    if leg.handle and not target.capabilities.needs_network:
        yield from filter(None, map(parse_sentinel, target.logs(flow.handle(leg), follow=False)))


def deliver(content: str, path: Path | None) -> None:
    """Writes `path` atomically, or stdout where there is none."""
    if path:
        write_atomic(path, content)
    else:
        sys.stdout.write(content)


# == comparing: From runs to their comparison: collect each, gather what the ledger knows, put them beside each other.


def find(flow: Workflow, names: Sequence[str]) -> list[Run]:
    """The runs called so, in the order given: the first is the one the others are held against.

    Raises:
        UsageError: fewer than two, or one twice.
    """
    runs = [flow.ledger.find_run(name) for name in names]
    ids = [run.run_id for run in runs]
    if twice := sorted({run_id for run_id in ids if ids.count(run_id) > 1}):
        raise UsageError(f"{', '.join(twice)} is named twice", "compare RUN RUN, with two different runs")
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs or more", "boneagectl ls shows them")
    return runs


def comparing_build(flow: Workflow, runs: Sequence[Run], wanted: ComparisonFormat) -> str:
    """Collects `runs` and renders their comparison.

    Raises:
        NotYet: no leg of a run has made anything.
    """
    from boneagectl.report import comparison, comparison_run

    found = [comparison_run.load(RunFolder(flow.collect(run).folder), facts(flow, run)) for run in runs]
    command = shlex.join(["boneagectl", "compare", *(run.run_id for run in runs)])
    written = {
        ComparisonFormat.TEXT: comparison.to_text,
        ComparisonFormat.HTML: comparison.to_html,
        ComparisonFormat.CSV: comparison.to_csv,
        ComparisonFormat.JSON: comparison.to_json,
        ComparisonFormat.MARKDOWN: comparison.to_markdown,
        ComparisonFormat.LATEX: comparison.to_latex,
    }
    return written[wanted](comparison.compared(found, command))

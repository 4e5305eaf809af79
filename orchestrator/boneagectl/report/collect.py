"""From runs to reports: collect outputs, add what the ledger knows, render, write."""

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


# -------------------------------------------------------------------------------- one report
def build_report(flow: Workflow, run: Run, format_: Format, samples: Path | None = None) -> str:
    """Collects `run` and renders its report; `samples` is a sheet of radiographs that HTML shows.

    Raises:
        NotYet: no leg of the run has outputs. UsageError: `samples` is not a PNG.
    """
    extra: dict[str, Any] = {}
    if samples:
        try:
            content = samples.read_bytes()
        except OSError as error:
            raise UsageError(f"{samples} cannot be read: {error.strerror}", _MAKE_SHEET) from None
        if not content.startswith(_PNG):
            raise UsageError(f"{samples} is not a PNG", _MAKE_SHEET)
        extra["samples_png"] = base64.b64encode(content).decode()
    folder = flow.collect(run).folder
    if format_ is Format.HTML:
        extra["accounts"] = _accounts_of(run, all_burndowns(flow))
    return _render(flow, run, RunFolder(folder), format_, extra)


def _render(flow: Workflow, run: Run, folder: RunFolder, format_: Format, extra: dict[str, Any]) -> str:
    from boneagectl.report import data, evaluation, export, run_page

    lacking = [folder] if evaluation.lacks_metrics(folder) else []
    computed = evaluation.compute_metrics(flow.config["targets.local.python"], lacking)
    loaded = data.load_run(folder, {**run_facts(flow, run), **extra}, computed)
    if format_ is Format.HTML:
        return run_page.render_run(loaded)
    return export.to_csv(loaded) if format_ is Format.CSV else json.dumps(export.to_json(loaded), indent=2) + "\n"


def write_output(content: str, path: Path | None) -> None:
    """Writes `path` atomically, or stdout where there is none."""
    if path:
        write_atomic(path, content)
    else:
        sys.stdout.write(content)


# ------------------------------------------------------------------------------------- facts
def run_facts(flow: Workflow, run: Run) -> dict[str, Any]:
    """What the ledger knows about a run and its folder does not; None is unknown."""
    spent = [leg.spent_usd_micro for leg in run.legs]
    known = [value for value in spent if value is not None]
    return {
        "run_id": run.run_id,
        "legs": [
            {
                "id": leg.leg_id, "number": leg.number, "target": leg.target, "state": str(leg.state),
                "reason": leg.reason, "started": leg.created, "hours": leg.elapsed_s / 3600,
                "elapsed_s": leg.elapsed_s, "trainer_s": _trainer_s(flow, leg),
            }
            for leg in run.legs
        ],
        "cost_usd": units.to_usd(sum(known)) if len(known) == len(spent) else None,
        "quota_hours": _quota_hours(flow, run),
        "config": as_json(run.config),
        "data": run.data,
        "bundle_sha256": run.bundle_sha256,
        "created": run.created,
        "command": f"boneagectl report {run.run_id}",
    }  # fmt: skip


def _trainer_s(flow: Workflow, leg: Leg) -> float | None:
    """How long the leg's trainer itself ran, by its state file; None without one, or with another leg's."""
    state = _read_object(flow.paths(leg).artifacts.state)
    if state.get("leg") != leg.leg_id or state.get("state") == "running":
        return None
    try:
        return max(0.0, float(state["updated_s"]) - float(state["started_s"]))
    except (KeyError, TypeError, ValueError):
        return None


def _quota_hours(flow: Workflow, run: Run) -> float | None:
    """Hours of a provider's quota that the run used; None where the plan of a leg is missing."""
    hours = 0.0
    for leg in run.legs:
        if leg.state is LegState.RELEASED:
            continue
        quote = _read_object(flow.paths(leg).plan).get("plan", {}).get("quote", {})
        if "quota_s" not in quote:
            return None
        hours += leg.elapsed_s / 3600 if quote["quota_s"] else 0.0
    return hours


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object of ours, empty where it is missing or torn."""
    try:
        return parse_object(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError, ContractError):
        return {}


def all_burndowns(flow: Workflow) -> list[dict[str, Any]]:
    """Every limit of every account of which anything is used, by the ledger: see `burndown.limit_series`."""
    ledger, entries, now_s = flow.ledger, flow.ledger.entries(), int(time.time())
    burndowns = []
    for account in ledger.accounts():
        own = [entry for entry in entries if entry.account == account.name]
        by_day = burndown.expand_daily_charges(own, partial(ledger.spent_usd_micro, account.name), now_s)
        burndowns += burndown.limit_series(account, by_day, now_s)
    return burndowns


def _accounts_of(run: Run, burndowns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of `burndowns` whose account a leg of `run` was reserved on."""
    targets = {leg.target for leg in run.legs}
    return [limit for limit in burndowns if limit["account"] in targets]


# ---------------------------------------------------------------------------------- all runs
def build_index(flow: Workflow, path: Path) -> list[str]:
    """Writes the page over all runs to `path`, and each run's report where it is missing or older than the run.

    Collects only what needs no network. Returns a line for each run whose files are broken.
    """
    from boneagectl.report import index_page

    rows, problems, burndowns = [], [], all_burndowns(flow)
    for run in flow.ledger.runs():
        folder, facts, report = local_folder(flow, run), run_facts(flow, run), flow.home.report(run.run_id)
        try:
            if folder:
                _refresh_report(flow, run, folder, _accounts_of(run, burndowns))
            rows.append(index_page.build_row(folder, facts, report, path))
        except ContractError as error:
            problems.append(f"{run.run_id}: {error}")
            rows.append(index_page.build_row(None, facts, report, path))
    write_atomic(path, index_page.render_index(rows, burndowns))
    return problems


def local_folder(flow: Workflow, run: Run) -> RunFolder | None:
    """The newest folder of `run` with an epoch, of those that need no network to collect; else the newest of any."""
    for leg in run.legs:
        is_local = leg.handle and not flow.target(leg.target).capabilities.needs_network
        if is_local and not artifacts.is_complete(flow.paths(leg).artifacts):
            with suppress(NotYet):
                flow.collect_leg(leg)
    folders = [folder for leg in reversed(run.legs) if (folder := flow.paths(leg).artifacts).root.is_dir()]
    return next((folder for folder in folders if folder.metrics.exists()), folders[0] if folders else None)


def _refresh_report(flow: Workflow, run: Run, folder: RunFolder, burndowns: list[dict[str, Any]]) -> None:
    """Like make: writes a report again where a file it is made from is newer."""
    report = flow.home.report(run.run_id)
    sources = (folder.metrics, folder.predictions, folder.evaluation, folder.environment, folder.state)
    newest = max((path.stat().st_mtime_ns for path in sources if path.exists()), default=0)
    if not report.exists() or report.stat().st_mtime_ns < newest:
        write_atomic(report, _render(flow, run, folder, Format.HTML, {"accounts": burndowns}))


def validation_curve(flow: Workflow, run: Run) -> list[float | None]:
    """Validation MAE by epoch in months, of all legs, as far as it is here or needs no network."""
    epochs: dict[int, Any] = {}
    for leg in run.legs:
        with suppress(BoneagectlError, ContractError, OSError):
            for line in _epoch_lines(flow, leg):
                if isinstance(line.get("epoch"), int):
                    epochs[line["epoch"]] = line.get("val_mae_months")
    values = (epochs.get(epoch) for epoch in range(1, max(epochs, default=0) + 1))
    return [float(value) if isinstance(value, int | float) else None for value in values]


def _epoch_lines(flow: Workflow, leg: Leg) -> Iterator[dict[str, Any]]:
    yield from read_metrics(flow.paths(leg).artifacts.metrics)
    target = flow.target(leg.target)
    if leg.handle and not target.capabilities.needs_network:
        yield from filter(None, map(parse_sentinel, target.logs(flow.handle(leg), follow=False)))


# -------------------------------------------------------------------------------- comparison
def find_runs(flow: Workflow, names: Sequence[str]) -> list[Run]:
    """The runs `names`, in that order: the first is the one the others are compared with.

    Raises:
        UsageError: fewer than two, or one twice.
    """
    runs = [flow.ledger.find_run(name) for name in names]
    ids = [run.run_id for run in runs]
    if twice := sorted({run_id for run_id in ids if ids.count(run_id) > 1}):
        raise UsageError(f"{', '.join(twice)} is named twice", "boneagectl compare RUN RUN, with two different runs")
    if len(runs) < 2:
        raise UsageError("a comparison needs at least two runs", "boneagectl ls")
    return runs


def build_comparison(flow: Workflow, runs: Sequence[Run], format_: ComparisonFormat) -> str:
    """Collects `runs` and renders their comparison.

    Raises:
        NotYet: no leg of a run has outputs.
    """
    from boneagectl.report import comparison, comparison_formats

    folders = [RunFolder(flow.collect(run).folder) for run in runs]
    command = shlex.join(["boneagectl", "compare", *(run.run_id for run in runs)])
    python = flow.config["targets.local.python"]
    compared = comparison.compare_folders(folders, [run_facts(flow, run) for run in runs], python, command)
    renderers = {
        ComparisonFormat.TEXT: comparison_formats.format_text,
        ComparisonFormat.HTML: comparison.render_comparison,
        ComparisonFormat.CSV: comparison_formats.format_csv,
        ComparisonFormat.JSON: comparison_formats.format_json,
        ComparisonFormat.MARKDOWN: comparison_formats.format_markdown,
        ComparisonFormat.LATEX: comparison_formats.format_latex,
    }
    return renderers[format_](compared)

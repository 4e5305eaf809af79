"""The comparison of several runs: reads them, pairs each with the first, and draws the HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY, RunFolder
from boneagectl.report import charts, text
from boneagectl.report.comparison_run import MEASURED, ComparedRun, load_compared
from boneagectl.report.comparison_tables import TIME_PARTS, ComparisonTable, build_notes, build_tables
from boneagectl.report.evaluation import RunPair, compute_metrics, lacks_metrics
from boneagectl.report.svg import ReportFigure
from boneagectl.templates import fill

TEMPLATE = "report/compare.html.j2"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs; the first is the one that the others are compared with."""

    runs: tuple[ComparedRun, ...]
    pairs: tuple[RunPair, ...]
    command: str
    problem: str = ""

    @property
    def title(self) -> str:
        return f"Comparison of {len(self.runs)} bone age runs"

    @property
    def tables(self) -> list[ComparisonTable]:
        return build_tables(self.runs, self.pairs)

    @property
    def notes(self) -> list[str]:
        return build_notes(self.runs, self.pairs, self.problem)


def compare_folders(
    folders: Sequence[RunFolder], facts: Sequence[Mapping[str, Any]], python: str, command: str
) -> Comparison:
    """Compares the runs in `folders`, two or more; one process of the interpreter `python` computes all pairs.

    Raises:
        ContractError: a file is there and broken.
    """
    lacking = [folder for folder in folders if lacks_metrics(folder, ("test",), MEASURED)]
    by_run = {str(run_facts.get("run_id")): folder for run_facts, folder in zip(facts, folders, strict=True)}
    computed = compute_metrics(python, lacking, by_run)
    runs = [load_compared(folder, run_facts, computed) for folder, run_facts in zip(folders, facts, strict=True)]
    return Comparison(tuple(runs), computed.pairs, command, computed.problem)


def render_comparison(comparison: Comparison) -> str:
    """One HTML file that needs nothing beside it and contains no script."""
    return fill(
        TEMPLATE, title=comparison.title, research_only=RESEARCH_ONLY, notes=comparison.notes,
        tables=comparison.tables, figures=[draw_errors(comparison.runs), draw_times(comparison.runs)],
        curves=[_curve_row(run) for run in comparison.runs], command=comparison.command,
    )  # fmt: skip


def draw_errors(runs: Sequence[ComparedRun]) -> ReportFigure:
    """The mean absolute error of each run that has one."""
    bars = []
    for run in runs:
        low, high = run.values["mae_ci95_low_months"], run.values["mae_ci95_high_months"]
        if (mae := run.values["mae_months"]) is not None:
            interval = None if low is None or high is None else (low, high)
            bars.append(charts.Bar(run.run_id, "", mae, text.months(mae, 2), interval))
    if not bars:
        return ReportFigure.absent("errors", "No run has a test error yet.")
    drawing = charts.plot_bars("errors", "Mean absolute error on the test set", bars)
    more = f" Runs without a test error: {len(runs) - len(bars)}." if len(bars) < len(runs) else ""
    caption = (
        "Mean absolute error of each run on its own test set; lower is better. Whiskers are 95 % confidence intervals. "
        f"Overlapping intervals do not show that two runs are equal: use the paired comparison below.{more}"
    )
    rows = tuple((bar.name, bar.text) for bar in bars)
    return ReportFigure("errors", drawing, caption, ("Run", "MAE (months)"), rows)


def draw_times(runs: Sequence[ComparedRun]) -> ReportFigure:
    """The time of each run by activity."""
    parts = {run.run_id: [run.values[key] for key, _ in TIME_PARTS] for run in runs}
    bars = [
        charts.StackedBar(run.run_id, text.duration(run.values["total_s"]), tuple(v or 0.0 for v in parts[run.run_id]))
        for run in runs
        if any(parts[run.run_id])
    ]
    if not bars:
        return ReportFigure.absent("times", "No run has been timed yet.")
    names = [name for _, name in TIME_PARTS]
    drawing = charts.plot_stacked_bars("times", "Time by activity", names, bars)
    caption = (
        "Time of each run by activity, in the order of the legend; an unknown part takes no room. Loading and "
        "computing are timed separately, so that a slow disk is not mistaken for a slow GPU."
    )
    rows = tuple((run_id, *map(text.plain, values)) for run_id, values in parts.items())
    return ReportFigure("times", drawing, caption, ("Run", *(f"{name} (s)" for name in names)), rows)


def _curve_row(run: ComparedRun) -> tuple[str, str, str]:
    """Name, drawing and numbers of a run's validation error by epoch."""
    known = [value for value in run.curve if value is not None]
    if not known:
        return run.run_id, "", "no epoch validated yet"
    numbers = f"{text.plain(known[0])} to {text.months(known[-1])}, lowest {text.plain(min(known))}"
    return run.run_id, charts.sparkline_svg(run.curve, f"Validation error of {run.run_id} by epoch: {numbers}"), numbers

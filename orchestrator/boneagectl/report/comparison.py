"""The comparison of several runs, from their numbers to HTML, JSON, CSV, Markdown, LaTeX and plain text."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from boneage_trainer.contract import RESEARCH_ONLY
from boneagectl.report import charts, comparison_tables, text
from boneagectl.report.comparison_run import Compared
from boneagectl.report.paired import Pair, pairs
from boneagectl.report.svg import Figure
from boneagectl.templates import fill

SCHEMA = 1
TEMPLATE = "report/compare.html.j2"
PARTS = (
    ("prepare_s", "Prepare"), ("startup_s", "Start-up"), ("compile_s", "First steps"), ("load_s", "Load"),
    ("compute_s", "Compute"), ("validate_s", "Validate"), ("checkpoint_s", "Save"), ("evaluate_s", "Evaluate"),
    ("rest_s", "Other"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs beside each other, the first being the one that the others are held against."""

    runs: tuple[Compared, ...]
    pairs: tuple[Pair, ...]
    command: str

    @property
    def title(self) -> str:
        return f"Comparison of {len(self.runs)} bone age runs"

    @property
    def tables(self) -> list[comparison_tables.Table]:
        return comparison_tables.tables(self.runs, self.pairs)

    @property
    def notes(self) -> list[str]:
        return comparison_tables.notes(self.runs, self.pairs)


def compared(runs: Sequence[Compared], command: str) -> Comparison:
    """Pairs every run with the first."""
    return Comparison(tuple(runs), tuple(pairs([(run.run_id, run.tested) for run in runs])), command)


def to_text(found: Comparison) -> str:
    return comparison_tables.to_text(found.tables, found.notes)


def to_markdown(found: Comparison) -> str:
    return comparison_tables.to_markdown(found.title, found.tables, found.notes)


def to_latex(found: Comparison) -> str:
    return comparison_tables.to_latex(found.tables, found.notes)


def to_csv(found: Comparison) -> str:
    """A line a run; the pair with the first run stands in the ``against_first_*`` columns."""
    none = dict.fromkeys(_pair_values(found.pairs[0]))
    further = [none, *map(_pair_values, found.pairs)]
    return comparison_tables.to_csv([{**run.values, **more} for run, more in zip(found.runs, further, strict=True)])


def _pair_values(pair: Pair) -> dict[str, Any]:
    low, high = pair.ci95_months or (None, None)
    return {
        "against_first_n": pair.n, "against_first_difference_months": pair.difference_months,
        "against_first_ci95_low_months": low, "against_first_ci95_high_months": high,
        "against_first_improved_share": pair.improved_share,
    }  # fmt: skip


def to_json(found: Comparison) -> str:
    """One object; what is not known is null.

    ``schema``, ``research_only``, ``command``, ``notes``; ``runs`` with each run's numbers, units in the names;
    ``pairs`` against the first run; ``differing_settings`` with each run's value; ``reference``: the paper's times.
    """
    value = {
        "schema": SCHEMA,
        "research_only": RESEARCH_ONLY,
        "command": found.command,
        "notes": found.notes,
        "runs": [{key: _finite(one) for key, one in run.values.items()} for run in found.runs],
        "pairs": [{**asdict(pair), "verdict": pair.verdict} for pair in found.pairs],
        "differing_settings": comparison_tables.differing(found.runs),
        "reference": {
            "note": comparison_tables.NOTE,
            "timings": [asdict(timing) for timing in comparison_tables.TIMINGS],
        },
    }
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# -------------------------------------------------------------------------------------- HTML
def to_html(found: Comparison) -> str:
    """One file that needs nothing beside it, and runs nothing."""
    return fill(
        TEMPLATE, title=found.title, research_only=RESEARCH_ONLY, notes=found.notes, tables=found.tables,
        figures=[_errors(found.runs), _times(found.runs)], curves=[_curve(run) for run in found.runs],
        command=found.command,
    )  # fmt: skip


def _errors(runs: Sequence[Compared]) -> Figure:
    drawn = [
        charts.Bar(run.run_id, "", mae, text.months(mae, 2), _interval(run.values))
        for run in runs
        if (mae := run.values["mae_months"]) is not None
    ]
    if not drawn:
        return Figure.absent("errors", "No run has a test error yet.")
    desc = "; ".join(f"{bar.name} {bar.words}" for bar in drawn) + "."
    drawing = charts.lying("errors", "Mean absolute error on the test set", desc, drawn, max(bar.top for bar in drawn))
    left_out = len(runs) - len(drawn)
    more = f" Without a test error yet: {left_out}." if left_out else ""
    caption = (
        "Mean absolute error of each run on its own test set; shorter is better. Whiskers are 95 % intervals over its "
        f"radiographs. Whether two runs differ is told by the paired comparison below, not by their overlap.{more}"
    )
    return Figure("errors", drawing, caption, ("Run", "MAE (months)"), tuple((bar.name, bar.words) for bar in drawn))


def _interval(values: Mapping[str, Any]) -> tuple[float, ...] | None:
    low, high = values["mae_ci95_low_months"], values["mae_ci95_high_months"]
    return None if low is None or high is None else (low, high)


def _times(runs: Sequence[Compared]) -> Figure:
    known = [(run, [(name, run.values[key]) for key, name in PARTS]) for run in runs]
    stacks = [
        charts.Stack(run.run_id, text.duration(run.values["total_s"]),
                   tuple(value or 0.0 for _, value in parts))
        for run, parts in known
        if any(value for _, value in parts)
    ]  # fmt: skip
    if not stacks:
        return Figure.absent("times", "No run has told its times yet.")
    names = tuple(name for _, name in PARTS)
    desc = "; ".join(f"{stack.name} {stack.words}" for stack in stacks) + "."
    drawing = charts.stacked("times", "Where the time went", desc, names, stacks)
    caption = (
        "Time of each run by what it was spent on, from left to right in the order of the legend; a part that a run "
        "did not tell takes no room and is not known in the table. Loading and computing are timed apart, so that a "
        "slow disk is not taken for a slow GPU."
    )
    rows = tuple((run.run_id, *(text.plain(value) for _, value in parts)) for run, parts in known)
    return Figure("times", drawing, caption, ("Run", *(f"{name} (s)" for name in names)), rows)


def _curve(run: Compared) -> tuple[str, str, str]:
    """Name, drawing and numbers of a run's validation error by epoch."""
    known = [value for value in run.curve if value is not None]
    if not known:
        return run.run_id, "", "no epoch has been validated yet"
    told = f"{text.plain(known[0])} to {text.months(known[-1])}, lowest {text.plain(min(known))}"
    return run.run_id, charts.drawing(run.curve, f"Validation error of {run.run_id} by epoch: {told}"), told
